"""The config file is strict: every wrong key is named with its fix; environment and flags win over the file."""

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.registry.records import Ability, Endpoint
from gateway.settings import ENVIRONMENT, Settings, load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "orbweaver.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_file_or_environment_the_defaults_are_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8080)
    assert not settings.telemetry.store_prompts
    assert not settings.allow_link_local


def test_the_example_of_the_design_is_accepted(tmp_path: Path) -> None:
    text = """
server: {host: 127.0.0.1, port: 8080, client_keys: optional}
candidates:
  - {name: small, base_url: "http://127.0.0.1:9100/v1", upstream_model: small-1, provider: openai,
     api_key_env: SMALL_KEY, price_in: 0.1, price_out: 0.4, context_window: 32768, can: [tools, json_schema, vision]}
routing: {default: small, quality: 0.7}
database_url: "sqlite:///.orbweaver/registry.db"
redis_url: null
"""
    candidate = load_settings(write(tmp_path, text)).candidates[0].to_candidate()
    assert candidate.can == {Ability.TOOLS, Ability.JSON_SCHEMA, Ability.VISION}
    assert candidate.deployments[0].upstream_model == "small-1"
    assert Endpoint.EMBEDDINGS not in candidate.endpoints


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("servr: {}", "servr: there is no such key. Did you mean 'server'?"),
        ("server: {prt: 1}", "server.prt: there is no such key. Did you mean 'port'?"),
        ("server: {port: 99999}", "server.port: Input should be less than or equal to 65535 (got 99999)"),
        ("routing: {quality: 3}", "routing.quality"),
        ("candidates: [{name: auto, base_url: 'http://x'}]", "'auto' is reserved"),
        ("candidates: [{name: 'a b', base_url: 'http://x'}]", "candidates.0.name"),
        ("candidates: [{name: a}]", "candidate 'a' needs base_url or deployments"),
        ("candidates: [{name: a, base_url: x, price_in: -1}]", "candidates.0.price_in"),
        ("candidates: [{name: a, base_url: x, can: [fly]}]", "candidates.0.can"),
        ("candidates: [{name: a, base_url: x}, {name: a, base_url: y}]", "two candidates are named 'a'"),
        ("admin_key: secret", "ORBWEAVER_ADMIN_KEY"),
        ("[1, 2]", "must hold a mapping"),
        ("a: [", "not valid YAML"),
    ],
    ids=range(13),
)
def test_a_wrong_key_is_named_with_its_fix(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, text))
    assert says in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no config file 'nowhere\.yaml'"):
        load_settings(Path("nowhere.yaml"))


def test_flags_win_over_environment_and_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "server: {port: 1111, host: 127.0.0.2}")
    monkeypatch.setenv("ORBWEAVER_PORT", "2222")
    assert load_settings(path).server.port == 2222
    assert load_settings(path).server.host == "127.0.0.2"
    assert load_settings(path, {"server.port": 3333, "server.host": None}).server.port == 3333


def test_a_bad_environment_value_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORBWEAVER_PORT", "eighty")
    with pytest.raises(ConfigError, match=r"server\.port.*'eighty'"):
        load_settings()


def test_the_admin_key_comes_from_the_environment_and_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORBWEAVER_ADMIN_KEY", "very-secret")
    settings = load_settings(overrides={"server.port": 1})
    assert settings.admin_key is not None
    assert settings.admin_key.get_secret_value() == "very-secret"
    assert "very-secret" not in repr(settings)
    assert "very-secret" not in settings.model_dump_json()


def test_several_deployments_inherit_from_their_candidate() -> None:
    settings = Settings.model_validate(
        {
            "candidates": [
                {
                    "name": "m",
                    "upstream_model": "m-1",
                    "api_key_env": "KEY",
                    "deployments": [{"base_url": "http://a/v1/"}, {"base_url": "http://b/v1", "weight": 3}],
                }
            ]
        }
    )
    places = settings.candidates[0].to_candidate().deployments
    assert [(p.id, p.base_url, p.upstream_model, p.api_key_env, p.weight) for p in places] == [
        ("m#0", "http://a/v1", "m-1", "KEY", 1.0),
        ("m#1", "http://b/v1", "m-1", "KEY", 3.0),
    ]


def test_every_environment_variable_is_described() -> None:
    assert all(name.startswith("ORBWEAVER_") and text for name, text in ENVIRONMENT.items())
