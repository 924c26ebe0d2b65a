"""The images and the composition: pinned, unprivileged, complete; checked with docker-compose where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import load_settings

TOP = Path(__file__).parents[2]
DOCKERFILES = sorted((TOP / "deploy" / "docker").glob("Dockerfile*"))
COMPOSE = TOP / "deploy" / "compose" / "docker-compose.yml"
SECRETS = ("ORBWEAVER_ADMIN_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "GRAFANA_PASSWORD")


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_is_pinned_unprivileged_and_copies_what_exists(path: Path) -> None:
    lines = path.read_text().splitlines()
    bases = {line.split()[1] for line in lines if line.startswith("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases.pop())
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            assert all((TOP / source).exists() for source in line.split()[1:-1]), line


def test_the_context_leaves_out_what_no_image_needs_and_keeps_what_it_copies() -> None:
    left_out = (TOP / ".dockerignore").read_text().split()
    assert {".git", ".venv", ".orbweaver"} <= set(left_out)
    copied = {
        name
        for path in DOCKERFILES
        for line in path.read_text().splitlines()
        if line.startswith("COPY") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert not copied & set(left_out)


def test_every_service_of_the_composition_is_pinned_and_its_files_exist() -> None:
    for name, service in services().items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (COMPOSE.parent / source).exists(), f"{name}: {source}"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} must not be reachable from outside unasked"


def test_no_secret_stands_in_the_composition_or_its_example() -> None:
    example = (COMPOSE.parent / "env.example").read_text()
    assert all(re.search(rf"^{name}=$", example, re.MULTILINE) for name in SECRETS)
    text = COMPOSE.read_text()
    assert all(f"${{{name}:?" in text for name in SECRETS)


def test_the_gateways_config_in_the_composition_is_accepted() -> None:
    settings = load_settings(COMPOSE.parent / "orbweaver.yaml")
    assert settings.server.client_keys == "required"


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_docker_compose_accepts_the_file_and_asks_for_missing_secrets() -> None:
    command = ["docker-compose", "-f", str(COMPOSE), "config", "-q"]
    plain = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    full = {**plain, **{name: "x" for name in SECRETS}}
    assert subprocess.run(command, env=full, capture_output=True, check=False).returncode == 0
    refused = subprocess.run(command, env=plain, capture_output=True, check=False, text=True)
    assert refused.returncode != 0
    assert "ORBWEAVER_ADMIN_KEY" in refused.stderr or "PASSWORD" in refused.stderr
