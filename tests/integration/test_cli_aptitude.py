"""`orbweaver aptitude suites|show` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def orbweaver(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in its own process."""
    import os

    return subprocess.run(
        [sys.executable, "-m", "gateway.cli.main", "aptitude", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "160", **environment},
    )


def test_suites_lists_what_is_bundled() -> None:
    records = json.loads(orbweaver("suites", "--json").stdout)
    core = next(record for record in records if record["suite"] == "core-50x20")
    assert (core["tasks"], core["items"], core["texts"]) == (50, 1000, "bundled")
    assert core["languages"] == ["ar", "de", "en", "es", "fr", "zh"]
    assert "core-50x20  (50 tasks x 20 shots)" in orbweaver("suites").stdout


def test_show_lists_the_tasks_of_a_suite() -> None:
    assert len(json.loads(orbweaver("show", "mmlu-pro-50x20", "--json").stdout)) == 50
    assert "zh-ordering" in orbweaver("show").stdout


def test_show_prints_items_with_their_gold_answers() -> None:
    items = json.loads(orbweaver("show", "--task", "en-picture-count", "--shots", "2", "--json").stdout)
    assert [item["difficulty"] for item in items] == ["easy", "medium"]
    assert items[0]["messages"][0]["content"][1]["type"] == "image_url"
    assert "-> " in orbweaver("show", "--task", "ar-dates", "--shots", "1").stdout


def test_another_seed_shows_other_items() -> None:
    one, two = (orbweaver("show", "--task", "en-units", "--seed", seed).stdout for seed in ("1", "2"))
    assert one
    assert one != two


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "core"], "unknown suite 'core'"),
        (["show", "--task", "en-unit"], "Did you mean en-units"),
        (["show", "mmlu-pro-50x20", "--task", "theoremQA-Math", "--suite-data", "/nowhere"], "is not there"),
    ],
)
def test_a_wrong_name_is_one_message_with_the_fix(arguments: list[str], message: str) -> None:
    done = orbweaver(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_folder_of_texts_comes_from_the_environment(shared_data: Path) -> None:
    shown = orbweaver(
        "show", "mmlu-redux-30x20", "--task", "mmlu-virology", ORBWEAVER_SUITE_DATA=str(shared_data / "routing")
    )
    assert shown.returncode == 0
    assert "Answer with the letter of the correct option." in shown.stdout
