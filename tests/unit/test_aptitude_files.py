"""Adding a task is one file, without code; a broken file says where and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aptitude_tests.build import build_suite, read_task
from aptitude_tests.errors import AptitudeError
from aptitude_tests.item import Reply
from aptitude_tests.scorers import score
from aptitude_tests.suite_data import list_tasks, load_suite

HEAD: dict[str, Any] = {
    "task": "capitals",
    "version": 1,
    "summary": "Name the capital.",
    "keywords": ["geography", "capitals", "countries", "cities", "facts"],
    "language": "en",
    "domain": "knowledge",
    "modality": "text",
    "scorer": "text",
}
ROWS: list[dict[str, Any]] = [
    {"question": f"What is the capital of country {i}?", "gold": f"City {i}", "difficulty": "easy"} for i in range(25)
]


def write(path: Path, *rows: Any) -> Path:
    """A JSONL file; texts are written as they are."""
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
    return path


def test_a_task_is_one_jsonl_file_with_the_name_of_a_scorer(tmp_path: Path) -> None:
    suite = build_suite(str(write(tmp_path / "capitals.jsonl", HEAD, *ROWS)))
    assert (suite.name, len(suite.tasks), len(suite.items)) == ("capitals", 1, 20)
    assert score(suite.items[0], Reply(f"Answer: {suite.items[0].gold}")).score == 1.0


def test_the_ids_of_written_items_do_not_depend_on_their_order(tmp_path: Path) -> None:
    one = build_suite(str(write(tmp_path / "a.jsonl", HEAD, *ROWS[:3])))
    two = build_suite(str(write(tmp_path / "a.jsonl", HEAD, *ROWS[2::-1])))
    assert {item.id for item in one.items} == {item.id for item in two.items}


def test_another_seed_draws_other_items_from_a_longer_file(tmp_path: Path) -> None:
    path = str(write(tmp_path / "capitals.jsonl", HEAD, *ROWS))
    assert {i.hash for i in build_suite(path, seed=1).items} != {i.hash for i in build_suite(path, seed=2).items}


def test_a_folder_of_tasks_is_a_suite(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", HEAD, *ROWS[:2])
    write(tmp_path / "b.jsonl", HEAD | {"task": "more"}, {"question": "2?", "gold": "B"})
    assert [task.name for task in load_suite(str(tmp_path)).tasks] == ["capitals", "more"]
    assert [task.name for task in list_tasks(str(tmp_path))] == ["capitals", "more"]


def test_a_yaml_task_of_ones_own_uses_a_bundled_generator(tmp_path: Path) -> None:
    path = tmp_path / "es-units.yaml"
    path.write_text(
        json.dumps(HEAD | {"task": "de-units-2", "language": "de", "scorer": "number", "generator": "unit"})
    )
    assert len(build_suite(str(path)).items) == 20


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEAD], "no items"),
        (["{", ROWS[0]], "line 1: not JSON"),
        (["[]", ROWS[0]], "line 1: not an object"),
        ([{**HEAD, "keywords": ["one"]}, ROWS[0]], "1 keywords, expected 5"),
        ([{**HEAD, "language": "tlh"}, ROWS[0]], "language 'tlh' is not one of en, zh"),
        ([{**HEAD, "scorer": "txt"}, ROWS[0]], "unknown scorer 'txt'; did you mean 'text'"),
        ([{**HEAD, "colour": 1}, ROWS[0]], "unknown key 'colour'"),
        ([{k: v for k, v in HEAD.items() if k != "domain"}, ROWS[0]], "key 'domain' is missing"),
        ([HEAD, {"question": "?"}], "line 2: an item needs `question` and `gold`"),
        ([HEAD, {**ROWS[0], "answer": 1}], "line 2: unknown key 'answer'"),
        ([HEAD, {**ROWS[0], "difficulty": "brutal"}], "line 2: difficulty 'brutal'"),
        ([HEAD, {**ROWS[0], "gold": 7}], "gold 7"),
        ([HEAD, ROWS[0], ROWS[0]], "is there twice"),
        ([{**HEAD, "generator": "unit"}, ROWS[0]], "generator 'unit' is for scorer 'number'"),
        ([{**HEAD, "generator": "tracking"}, ROWS[0]], "a generator and items"),
        ([{**HEAD, "scorer": "tool_call"}, {"question": "?", "gold": {"calls": []}, "tools": [1]}], "wrong shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(AptitudeError) as caught:
        build_suite(str(write(tmp_path / "task.jsonl", *rows)))
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AptitudeError, match=r"nowhere\.jsonl cannot be read"):
        read_task(tmp_path / "nowhere.jsonl")


def test_an_unknown_suite_names_the_bundled_ones() -> None:
    with pytest.raises(AptitudeError, match=r"unknown suite 'core'.*core-50x20"):
        load_suite("core")


def test_a_language_without_wording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fr-units.yaml"
    path.write_text(json.dumps(HEAD | {"language": "fr", "scorer": "number", "generator": "unit"}))
    with pytest.raises(AptitudeError, match="no language 'fr'"):
        build_suite(str(path))
