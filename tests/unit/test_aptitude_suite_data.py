"""Suites by item id: texts from Parquet or from the model hub, and clear errors where neither is to be had."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from aptitude_tests.errors import AptitudeError
from aptitude_tests.suite_data import bundled_items, list_tasks, load_suite, split_prompt

NAMES = ("mmlu-pro-50x20", "mmlu-redux-30x20")
TAIL = "Answer with the letter of the correct option."


def prompt_of(number: int) -> str:
    """An invented prompt in the shape of the recorded ones."""
    return f"Question {number}:\n\nA. is it this?\n\nA. first\nB. second,\nin two lines\nC. third\n\n{TAIL}"


def write_parquet(folder: Path, ids: Iterable[str]) -> Path:
    """prompts.parquet with an invented text for each id."""
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = [
        {"prompt_id": name, "prompt": prompt_of(i), "reference": "ABC"[i % 3], "n_options": 3.0}
        for i, name in enumerate(ids)
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "prompts.parquet")
    return folder


def hub(dataset: str, subject: str | None) -> list[Mapping[str, Any]]:
    """A stand-in for the model hub."""
    if subject is None:
        return [
            {"question_id": i, "question": f"Q{i}?", "options": ["a", "b", "c"], "answer": "C", "answer_index": 2}
            for i in range(13_000)
        ]
    return [{"question": f"{subject} {i}?", "choices": list("wxyz"), "answer": i % 4} for i in range(100)]


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_statistics_are_bundled_and_texts_are_not(name: str) -> None:
    rows = bundled_items(name)
    assert len(rows) == len(list_tasks(name)) * 20
    assert len({row["id"] for row in rows}) == len(rows)
    assert set(rows[0]) == {"id", "task", "shot", "p_seen", "item_total_r", "sha"}
    assert all(len(set(task.keywords)) == 5 for task in list_tasks(name))


@pytest.mark.parametrize("name", NAMES)
def test_texts_come_from_parquet(name: str, tmp_path: Path) -> None:
    suite = load_suite(name, data_dir=write_parquet(tmp_path, [row["id"] for row in bundled_items(name)]))
    assert len(suite.items) == len(bundled_items(name))
    assert suite.items[1].options == ("first", "second,\nin two lines", "third")
    assert suite.items[1].gold == "B"
    assert set(suite.statistics[suite.items[0].id]) == {"p_seen", "item_total_r"}
    assert "read otherwise" in suite.warnings[0]


@pytest.mark.parametrize("name", NAMES)
def test_texts_come_from_the_model_hub(name: str) -> None:
    suite = load_suite(name, fetch=hub)
    number = suite.items[0].id.split("/")[-1]
    assert suite.items[0].question in (f"Q{number}?", f"anatomy {number}?")
    assert suite.items[0].gold in "ABCD"


def test_fewer_shots_load_fewer_items() -> None:
    assert len(load_suite("mmlu-redux-30x20", shots=2, fetch=hub).items) == 60


def test_a_prompt_with_lettered_lines_in_its_question_is_split_at_its_options() -> None:
    question = split_prompt(prompt_of(7), 3, "A")
    assert question.text == "Question 7:\n\nA. is it this?"


def test_a_prompt_of_another_shape_is_refused() -> None:
    with pytest.raises(AptitudeError, match="option C is not to be found"):
        split_prompt("Which?\nA. one\nB. two", 3, "A")


def test_a_folder_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AptitudeError, match=r"prompts\.parquet is not there"):
        load_suite(NAMES[0], data_dir=tmp_path)


def test_missing_items_are_counted(tmp_path: Path) -> None:
    ids = [row["id"] for row in bundled_items(NAMES[0])][3:]
    with pytest.raises(AptitudeError, match="lacks 3 of 1000 items"):
        load_suite(NAMES[0], data_dir=write_parquet(tmp_path, ids))


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "prompts.parquet").write_bytes(b"not parquet")
    with pytest.raises(AptitudeError, match="cannot be read"):
        load_suite(NAMES[0], data_dir=tmp_path)


@pytest.mark.parametrize(("package", "data"), [("pyarrow", True), ("datasets", False)])
def test_a_missing_package_is_named_with_the_fix(
    package: str, data: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *arguments, **more)

    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(AptitudeError, match=f"pip install {package}"):
        load_suite(NAMES[0], data_dir=tmp_path if data else None)


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("no such dataset"), RuntimeError("offline")])
def test_a_hub_that_cannot_be_reached_is_explained(error: Exception) -> None:
    def fails(dataset: str, subject: str | None) -> Iterable[Mapping[str, Any]]:
        raise error

    with pytest.raises(AptitudeError, match=r"cannot be loaded: .*ORBWEAVER_SUITE_DATA"):
        load_suite(NAMES[1], fetch=fails)


def test_a_data_set_that_changed_its_shape_is_explained() -> None:
    with pytest.raises(AptitudeError, match="has not the expected shape"):
        load_suite(NAMES[0], fetch=lambda dataset, subject: [{"id": 1}])


@pytest.mark.parametrize("name", NAMES)
def test_recorded_texts_are_those_that_were_calibrated(name: str, shared_data: Path) -> None:
    pytest.importorskip("pyarrow")
    suite = load_suite(name, data_dir=shared_data / "routing")
    assert suite.warnings == ()
    assert {item.gold for item in suite.items} <= set("ABCDEFGHIJ")
