"""The command line: fast to start, heavy modules only when needed, errors without tracebacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def orbweaver(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def test_help_lists_every_group() -> None:
    from gateway.cli.main import GROUPS

    shown = orbweaver("--help").stdout
    assert all(name in shown for name in GROUPS)


def test_every_group_can_be_imported_and_has_help() -> None:
    from gateway.cli.main import GROUPS

    for name in GROUPS:
        done = orbweaver(name, "--help")
        assert done.returncode == 0, (name, done.stderr)


def test_start_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gateway.cli.main import build_cli; build_cli([]); "
        "heavy = 'fastapi aiohttp sqlalchemy numpy onnxruntime torch litellm pydantic yaml'.split(); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_command_is_an_error() -> None:
    assert orbweaver("modles").returncode == 2


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_config_check_names_the_wrong_key(tmp_path: Path, as_json: bool) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("servr: {}", encoding="utf-8")
    done = orbweaver("config", "check", str(path), *(["--json"] if as_json else []))
    assert done.returncode == 2
    assert "Did you mean 'server'?" in done.stderr
    assert "Traceback" not in done.stderr
    if as_json:
        assert json.loads(done.stderr)["error"]["code"] == "invalid_config"


def test_config_check_warns_of_keys_that_are_not_set(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text("candidates: [{name: a, base_url: 'http://127.0.0.1:1/v1', api_key_env: NOT_SET_KEY}]")
    done = orbweaver("config", "check", str(path), "--json")
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["candidates"]) == (True, 1)
    assert "NOT_SET_KEY" in answer["warnings"][0]


def test_config_schema_is_a_json_schema() -> None:
    assert "routing" in json.loads(orbweaver("config", "schema").stdout)["properties"]


def test_route_without_a_gateway_says_how_to_start_one() -> None:
    done = orbweaver("route", "hello", "--url", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "orbweaver serve" in done.stderr


def test_a_version_is_staged_promoted_and_rolled_back_from_the_command_line(tmp_path: Path) -> None:
    from capability_encoder.artifact import SHIPPED

    staged = json.loads(orbweaver("encoder", "stage", str(SHIPPED), "--json").stdout)
    assert (staged["live"], staged["history"]) == ("shipped", [])
    promoted = json.loads(orbweaver("encoder", "promote", "--json").stdout)
    assert promoted == {"live": staged["shadow"], "shadow": None, "history": ["shipped"]}
    assert json.loads(orbweaver("encoder", "rollback", "--json").stdout)["live"] == "shipped"
    nothing = orbweaver("encoder", "stage", str(tmp_path))
    assert nothing.returncode == 2
    assert "manifest.json" in nothing.stderr
