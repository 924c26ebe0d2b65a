"""Taught tasks are kept without their text and reach a running index when the folder changes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from capability_encoder.task_index import TaskError, TaskIndex
from capability_encoder.task_store import LiveTasks, TaskStore, TaughtTask, read_examples, teach_task

AXES = np.eye(4, dtype=np.float32)
KNOWN = TaskIndex.from_examples(AXES[:3], ["a", "b", "c"])


class FakeEmbedder:
    fingerprint = "e1"

    def embed(self, asks: Sequence[str], /) -> npt.NDArray[np.float32]:
        return np.tile(AXES[3], (len(asks), 1))


def examples(folder: Path, text: str = '{"prompt": "Review my lease"}\n"Draft a will"\n\n') -> Path:
    path = folder / "examples.jsonl"
    path.write_text(text)
    return path


def live(state: Path) -> LiveTasks:
    return LiveTasks(KNOWN, TaskStore(state, "e1"), lambda vectors: vectors)


def test_a_running_index_picks_a_taught_task_up(tmp_path: Path) -> None:
    tasks = live(tmp_path)
    assert tasks.blend(AXES[3])[1] is None
    assert not tasks.refresh()
    teach_task("law", examples(tmp_path), state=tmp_path, embedder=FakeEmbedder())
    assert tasks.refresh()
    assert tasks.get().nearest(AXES[3], 1)[0].name == "law"
    assert tasks.blend(AXES[3])[1] == "law"


def test_a_prompt_of_a_taught_task_is_drawn_towards_its_mean(tmp_path: Path) -> None:
    TaskStore(tmp_path, "e1").save(TaughtTask("law", AXES[3], 5))
    prompt = np.array([0.6, 0.0, 0.0, 0.8], dtype=np.float32)
    blended, name = live(tmp_path).blend(prompt)
    assert name == "law"
    assert blended @ AXES[3] > prompt @ AXES[3]
    assert np.linalg.norm(blended) == pytest.approx(1.0)
    np.testing.assert_array_equal(live(tmp_path).blend(AXES[0])[0], AXES[0])


def test_a_removed_task_goes(tmp_path: Path) -> None:
    store = TaskStore(tmp_path, "e1")
    store.save(TaughtTask("law", AXES[3], 2))
    tasks = live(tmp_path)
    store.remove("law")
    assert tasks.refresh()
    assert [task.name for task in tasks.get().tasks] == ["a", "b", "c"]


def test_the_file_holds_no_text_of_the_examples(tmp_path: Path) -> None:
    teach_task("law", examples(tmp_path), state=tmp_path, embedder=FakeEmbedder())
    record = json.loads((tmp_path / "tasks" / "law.json").read_text())
    assert set(record) == {"name", "embedder", "shots", "mean"}
    assert record["shots"] == 2


def test_a_name_that_is_taken_needs_replace(tmp_path: Path) -> None:
    path = examples(tmp_path)
    teach_task("law", path, state=tmp_path, embedder=FakeEmbedder())
    with pytest.raises(TaskError, match="exists already"):
        teach_task("law", path, state=tmp_path, embedder=FakeEmbedder())
    teach_task("law", path, state=tmp_path, embedder=FakeEmbedder(), replace=True)


@pytest.mark.parametrize("name", ["../evil", "", "a b", ".hidden", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match="cannot name a task"):
        TaskStore(tmp_path, "e1").save(TaughtTask(name, AXES[3], 1))
    with pytest.raises(TaskError, match="no taught task"):
        TaskStore(tmp_path, "e1").remove(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds 0 examples"),
        ("{", "line 1 is not JSON"),
        ('"fine"\n{"text": "x"}', "line 2 holds no prompt"),
        ('{"prompt": " "}', "line 1 holds no prompt"),
    ],
    ids=["empty", "json", "no-prompt", "blank"],
)
def test_a_bad_file_of_examples_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        read_examples(examples(tmp_path, text))


def test_an_absent_file_of_examples_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none.jsonl' cannot be read"):
        read_examples(tmp_path / "none.jsonl")


def test_damaged_and_foreign_files_are_left_out_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    TaskStore(tmp_path, "old").save(TaughtTask("old", AXES[3], 1))
    (tmp_path / "tasks" / "bad.json").write_text("{")
    TaskStore(tmp_path, "e1").save(TaughtTask("law", AXES[3], 1))
    assert [task.name for task in TaskStore(tmp_path, "e1").load()] == ["law"]
    assert "another embedder" in caplog.text
    assert "bad.json is damaged" in caplog.text
