"""Examples of the README and the guides: configs load, commands have these options, Python runs against a gateway."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from aptitude_tests.build import build_suite
from gateway.cli.main import build_cli
from gateway.config_file import validate
from merge_backends.engine.settings import check_settings
from merge_backends.recipe import parse_recipes
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.serving import candidate, serving

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
GENERATED = {"cli.md", "settings.md"}
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        if page.name in GENERATED:
            continue
        for number, (kind, text) in enumerate(FENCE.findall(page.read_text()), 1):
            if kind == language:
                found.append(pytest.param(text, id=f"{page.name}-{number}"))
    return found


def commands(text: str) -> list[list[str]]:
    """The `orbweaver` lines of a shell block, continued lines joined, comments cut."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words[1:] for words in lines if words and words[0].endswith("orbweaver") and len(words) > 1]


def parse(arguments: list[str]) -> None:
    """Parse as the command line would, without running anything; raises a usage error where it does not fit."""
    command: Any = typer.main.get_command(build_cli(arguments))
    context = command.make_context("orbweaver", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, left = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, left, parent=context)


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_exist_with_these_options(text: str) -> None:
    for arguments in commands(text):
        parse(arguments)


def test_an_option_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["models", "add", "small", "--bse-url", "x"])


def inline_commands() -> list[Any]:
    """`orbweaver a b|c` in running text, one entry for each choice; up to the first option or value."""
    found = set()
    for page in PAGES:
        for code in re.findall(r"`orbweaver ([a-z][^`\n]*)`", page.read_text()):
            words = list(itertools.takewhile(re.compile(r"[a-z|-]+").fullmatch, code.split()[:2]))
            found |= {(page.name, *each) for each in itertools.product(*(word.split("|") for word in words))}
    return [pytest.param(words, id=f"{page}-{'-'.join(words)}") for page, *words in sorted(found)]


@pytest.mark.parametrize("words", inline_commands())
def test_commands_named_in_the_text_exist(words: list[str]) -> None:
    command: Any = typer.main.get_command(build_cli(words))
    for word in words:
        if not hasattr(command, "commands"):
            break  # a single command; what follows is its argument
        assert word in command.commands
        command = command.commands[word]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_make_targets_exist(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`(?:[A-Z]+=\S+ )?make ([a-z-]+)`", text)) <= targets


@pytest.mark.parametrize("text", blocks("yaml"))
def test_config_examples_are_accepted(text: str) -> None:
    data = yaml.safe_load(text)
    if "merge_method" in data or "method" in data:
        assert parse_recipes(text)
    elif "models" in data or "merges" in data:
        check_settings(data)
    else:
        validate(data, None)


@pytest.mark.parametrize("text", blocks("json"))
def test_json_examples_are_json_and_suite_lines_make_a_suite(text: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in text.strip().splitlines()] if text.startswith("{") else [json.loads(text)]
    if "scorer" in rows[0]:
        path = tmp_path / "ours.jsonl"
        path.write_text(text)
        assert len(build_suite(str(path)).items) == len(rows) - 1


async def test_python_examples_run_with_the_official_client(tmp_path: Path) -> None:
    import asyncio
    import sys

    texts = [block.values[0] for block in blocks("python")]
    assert texts
    async with ScriptedUpstream() as upstream:
        models = [candidate(name, upstream.base_url) for name in ("small", "large")]
        async with serving(tmp_path, models) as gateway:
            for text in texts:
                code = text.replace("http://127.0.0.1:8080", gateway.url)
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", code),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                output, _ = await process.communicate()
                assert process.returncode == 0, output.decode()
    assert len(upstream.requests) >= len(texts)
