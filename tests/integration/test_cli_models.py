"""`orbweaver models` and `orbweaver keys`: on the registry itself and through a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from gateway.registry.encoding import hash_secret
from gateway.registry.registry import Registry
from gateway.settings import load_settings
from tests.support.live_gateway import LiveGateway, gateway_settings, live_gateway
from tests.support.registry import until
from tests.support.scripted_upstream import ScriptedUpstream, error_answer


@dataclass
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def orbweaver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Done]:
    """Runs a command as from a shell, in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr("sys.argv", ["orbweaver", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return run


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream().in_thread() as upstream:
        yield upstream


ADD = ("models", "add", "small", "--base-url", "http://127.0.0.1:9100/v1")


def test_a_model_is_registered_with_all_that_was_said(orbweaver: Run) -> None:
    options = "--upstream-model s-1 --price-in 0.1 --price-out 0.4 --context 32768 --can vision,tools --strength 0.6"
    done = orbweaver(*ADD, *options.split(), "--family", "llama-3", "--params-b", "7", "--json")
    assert done.code == 0
    shown = orbweaver("models", "show", "small", "--json").json
    assert shown["deployments"][0]["upstream_model"] == "s-1"
    assert (shown["price_in"], shown["price_out"], shown["context_window"]) == (0.1, 0.4, 32768)
    assert (shown["can"], shown["strength"], shown["family"]) == (["tools", "vision"], 0.6, "llama-3")
    assert shown["params_total_b"] == 7.0


def test_the_first_screen_says_how_to_go_on(orbweaver: Run) -> None:
    assert "orbweaver models add" in orbweaver("models", "list").out
    done = orbweaver(*ADD)
    assert "orbweaver models test small" in done.out
    assert "declared strength and price" in done.err
    assert "small" in orbweaver("models", "list").out


def test_a_bad_value_is_named_with_the_fix_and_code_2(orbweaver: Run) -> None:
    done = orbweaver("models", "add", "x", "--base-url", "http://169.254.169.254/v1", "--can", "fly", "--strength", "9")
    assert done.code == 2
    assert all(word in done.err for word in ("base_url", "link-local", "'fly'", "strength"))
    assert "Traceback" not in done.err


def test_the_same_name_twice_is_a_conflict(orbweaver: Run) -> None:
    orbweaver(*ADD)
    done = orbweaver(*ADD, "--json")
    assert done.code == 2
    assert json.loads(done.err)["error"]["code"] == "already_exists"


def test_models_are_switched_and_removed(orbweaver: Run) -> None:
    orbweaver(*ADD)
    assert "off" in orbweaver("models", "disable", "small").out
    assert orbweaver("models", "list", "--json").json["models"][0]["enabled"] is False
    assert "on" in orbweaver("models", "enable", "small").out
    assert orbweaver("models", "remove", "small").code == 0
    gone = orbweaver("models", "remove", "small")
    assert gone.code == 2
    assert "no candidate named 'small'" in gone.err


def test_a_model_of_the_config_file_is_listed_and_switched_off(orbweaver: Run, tmp_path: Path) -> None:
    (tmp_path / "orbweaver.yaml").write_text("candidates: [{name: a, base_url: 'http://127.0.0.1:1/v1'}]")
    assert orbweaver("models", "disable", "a", "--json").json["note"].startswith("Switched off at run time")
    assert orbweaver("models", "list", "--json").json["models"][0]["source"] == "config"
    assert "config file" in orbweaver("models", "remove", "a").err


def test_a_registration_queues_an_aptitude_test_unless_it_is_not_wanted(orbweaver: Run) -> None:
    done = orbweaver(*ADD)
    assert "measured as soon as a gateway runs" in done.out
    assert "declared strength and price until it is measured" in done.err
    plain = orbweaver("models", "add", "b", "--base-url", "http://127.0.0.1:1/v1", "--no-aptitude", "--json")
    assert "job" not in plain.json
    refused = orbweaver("models", "add", "c", "--base-url", "http://127.0.0.1:1/v1", "--suite", "none-such")
    assert refused.code == 2
    assert "Bundled are core-50x20" in refused.err
    assert [model["name"] for model in orbweaver("models", "list", "--json").json["models"]] == ["small", "b"]


def test_a_profile_file_is_imported(orbweaver: Run, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text('{"name": "elsewhere", "answers": [{"item": "q1", "score": 1.0}]}')
    assert orbweaver(*ADD, "--profile", str(path), "--json").json["measured"] is True
    path.write_text("[]")
    assert "must hold a JSON object" in orbweaver("models", "add", "b", "--profile", str(path)).err
    assert "cannot be read" in orbweaver("models", "add", "b", "--profile", str(tmp_path / "none")).err


def test_a_registration_is_proved_or_exits_with_1(orbweaver: Run, upstream: ScriptedUpstream) -> None:
    orbweaver("models", "add", "small", "--base-url", upstream.base_url)
    good = orbweaver("models", "test", "small")
    assert good.code == 0
    assert "9 + 3 tokens" in good.out
    assert "said: Hello there." in good.out
    upstream.always(error_answer(401, "Bad key"))
    bad = orbweaver("models", "test", "small")
    assert bad.code == 1
    assert "401: Bad key" in bad.err
    assert "--api-key-env" in bad.err


def test_a_key_is_printed_alone_and_stored_as_a_hash(orbweaver: Run) -> None:
    made = orbweaver("keys", "create", "team", "--rpm", "5", "--budget", "2.5", "--period", "month", "--models", "auto")
    secret = made.out.strip()
    assert len(secret) == 46
    assert "5 requests/min" in made.err
    (listed,) = orbweaver("keys", "list", "--json").json["keys"]
    assert secret not in json.dumps(listed)
    assert hash_secret(secret) not in json.dumps(listed)
    assert (listed["requests_per_minute"], listed["budget_usd"], listed["budget_period"]) == (5, 2.5, "month")


def test_a_key_is_revoked_by_name_or_id(orbweaver: Run) -> None:
    made = orbweaver("keys", "create", "team", "--json").json
    assert "Revoked" in orbweaver("keys", "revoke", "team").out
    assert orbweaver("keys", "revoke", made["id"], "--json").json["revoked"] is True
    assert orbweaver("keys", "revoke", "nobody").code == 2


@pytest.mark.parametrize("bad", [["--rpm", "0"], ["--budget", "-1"], ["--budget", "inf"], ["--period", "week"]])
def test_a_bad_limit_is_refused_with_its_value(orbweaver: Run, bad: list[str]) -> None:
    done = orbweaver("keys", "create", "team", *bad)
    assert done.code == 2
    assert "got" in done.err


def test_a_registry_that_cannot_be_read_is_a_clear_error(orbweaver: Run, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "registry.db").write_bytes(b"broken" * 1000)
    done = orbweaver("models", "list")
    assert done.code == 2
    assert "corrupt" in done.err
    assert "Traceback" not in done.err


def test_a_gateway_that_is_not_there_is_a_clear_error(orbweaver: Run) -> None:
    done = orbweaver("models", "list", "--url", "http://127.0.0.1:1")
    assert done.code == 2
    assert "orbweaver serve" in done.err


async def test_a_running_gateway_sees_within_a_second_what_the_command_line_changed(orbweaver: Run) -> None:
    async with Registry(load_settings()) as running:
        await asyncio.to_thread(orbweaver, *ADD)
        await until(lambda: "small" in running.snapshot.enabled, 1.0)
        secret = (await asyncio.to_thread(orbweaver, "keys", "create", "team")).out.strip()
        await until(lambda: running.find_key(secret) is not None, 1.0)


async def test_the_same_commands_work_through_a_running_gateway(
    orbweaver: Run, tmp_path: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live_gateway(gateway_settings(tmp_path / "far", [])) as gateway:
        monkeypatch.setenv("ORBWEAVER_URL", gateway.url)
        done = await asyncio.to_thread(_through, orbweaver, upstream.base_url)
        assert done == []
        assert set(_names(gateway)) == {"team/small"}


def _through(orbweaver: Run, base_url: str) -> list[Done]:
    """Every command once; those that failed."""
    commands: list[tuple[str, ...]] = [
        ("models", "add", "team/small", "--base-url", base_url, "--price-in", "1"),
        ("models", "list"),
        ("models", "show", "team/small"),
        ("models", "test", "team/small"),
        ("models", "disable", "team/small"),
        ("models", "enable", "team/small", "--json"),
        ("keys", "create", "team", "--tpm", "100"),
        ("keys", "list"),
        ("keys", "revoke", "team"),
    ]
    return [done for command in commands if (done := orbweaver(*command)).code != 0]


def _names(gateway: LiveGateway) -> list[str]:
    return list(gateway.services.registry.snapshot.enabled)
