"""Suites whose texts are not bundled: ids and statistics are here, texts come from Parquet files or the model hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from aptitude_tests.build import SUITES_DIR, build_suite, is_path, read_declaration, read_task, task_file
from aptitude_tests.errors import AptitudeError
from aptitude_tests.item import LETTERS, SHOTS, Difficulty, Item, Suite, Task
from aptitude_tests.render import render_text
from aptitude_tests.scorers import check_item

#: dataset, configuration (None for the default) -> rows of its test split, in order.
FetchRows = Callable[[str, str | None], Iterable[Mapping[str, Any]]]
_CHOICE_INSTRUCTION = "Answer with the letter of the correct option."


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple choice question as loaded; `letter` is the gold one."""

    text: str
    options: tuple[str, ...]
    letter: str


def load_suite(
    name: str,
    *,
    seed: int = 0,
    shots: int = SHOTS,
    data_dir: Path | None = None,
    fetch: FetchRows | None = None,
) -> Suite:
    """Any suite, ready to be asked: generated, from a file, or with texts from elsewhere.

    Args:
        seed: parallel form of generated suites; the others have one form.
        data_dir: folder with `prompts.parquet` (and `aptitude.parquet`, which need not agree with what is bundled).
        fetch: reads a data set from the model hub; by default with the package `datasets`.
    Raises:
        AptitudeError: no such suite, or its texts are neither in `data_dir` nor to be had from the hub.
    """
    if is_path(name) or "items" not in (declared := read_declaration(name)):
        return build_suite(name, seed=seed, shots=shots)
    rows = [row for row in bundled_items(name) if row["shot"] < shots]
    ids = [row["id"] for row in rows]
    questions = read_parquet(Path(data_dir), ids) if data_dir is not None else read_hub(name, declared, ids, fetch)
    return _assemble(name, declared, rows, questions)


def list_tasks(name: str) -> tuple[Task, ...]:
    """The tasks of a suite, without making or loading its items.

    Raises:
        AptitudeError: no such suite, or a task file of it is broken.
    """
    if is_path(name):
        return build_suite(name).tasks
    declared = read_declaration(name)
    if "items" in declared:
        return _declared_tasks(declared)
    return tuple(read_task(task_file(task))[0] for task in declared["tasks"])


@cache
def bundled_items(name: str) -> list[Mapping[str, Any]]:
    """Ids and statistics of a bundled suite: `id, task, shot, p_seen, item_total_r, sha`."""
    path = SUITES_DIR / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_parquet(folder: Path, ids: Iterable[str]) -> dict[str, Question]:
    """Questions by id from `prompts.parquet` in `folder`.

    Raises:
        AptitudeError: pyarrow is missing, the file is missing or broken, or an id is not in it.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise AptitudeError(
            "reading suite texts from Parquet needs pyarrow, which is not installed.",
            hint="pip install pyarrow, or leave --suite-data out to load the texts from the model hub.",
        ) from error
    path = folder / "prompts.parquet"
    wanted = set(ids)
    columns = ["prompt_id", "prompt", "reference", "n_options"]
    if not path.is_file():
        raise AptitudeError(f"{path} is not there.", hint="--suite-data names the folder that holds prompts.parquet.")
    try:
        table = parquet.read_table(path, columns=columns, filters=[("prompt_id", "in", wanted)])
    except (OSError, ValueError, KeyError, arrow.ArrowException) as error:
        raise AptitudeError(
            f"{path} cannot be read: {error}", hint=f"It needs the columns {', '.join(columns)}."
        ) from error
    found = {row["prompt_id"]: row for row in table.to_pylist()}
    missing = sorted(wanted - found.keys())
    if missing:
        raise AptitudeError(
            f"{path} lacks {len(missing)} of {len(wanted)} items, {missing[0]!r} among them.",
            hint="Point --suite-data at the data that the suite was made from.",
        )
    return {name: split_prompt(row["prompt"], int(row["n_options"]), row["reference"]) for name, row in found.items()}


def split_prompt(prompt: str, count: int, letter: str) -> Question:
    """Question and options of a prompt that ends with lettered options and the format instruction.

    Raises:
        AptitudeError: the prompt is built otherwise.
    """
    body = prompt.strip().removesuffix(_CHOICE_INSTRUCTION).removesuffix("\n\n")
    marks: list[int] = []
    end = len(body)
    for i in range(count - 1, -1, -1):
        at = body.rfind(f"\n{LETTERS[i]}. ", 0, end)
        at = at if at >= 0 else body.rfind(f"\n{LETTERS[i]}.", 0, end)
        if at < 0:
            raise AptitudeError(f"option {LETTERS[i]} is not to be found in a prompt that begins {prompt[:40]!r}.")
        marks.insert(0, at)
        end = at
    bounds = [*marks, len(body)]
    options = tuple(body[start + 3 : stop].removeprefix(" ") for start, stop in pairwise(bounds))
    return Question(body[: marks[0]].rstrip("\n"), options, letter)


def read_hub(
    name: str, declared: Mapping[str, Any], ids: Iterable[str], fetch: FetchRows | None = None
) -> dict[str, Question]:
    """Questions by id from the model hub, where `declared["hub"]` names the data set.

    Raises:
        AptitudeError: the hub cannot be reached, or the data set has changed its shape.
    """
    hub = declared["hub"]
    wanted = {item: item.split("/") for item in ids}
    try:
        fetch = fetch or fetch_rows
        if hub["layout"] == "question_id":
            rows = {str(row["question_id"]): row for row in fetch(hub["dataset"], None)}
            chosen = {item: rows[parts[-1]] for item, parts in wanted.items()}
        else:
            subjects = sorted({parts[1] for parts in wanted.values()})
            tables = {subject: list(fetch(hub["dataset"], subject)) for subject in subjects}
            chosen = {item: tables[parts[1]][int(parts[2])] for item, parts in wanted.items()}
        return {item: _from_hub(row) for item, row in chosen.items()}
    except (KeyError, IndexError, TypeError) as error:
        raise AptitudeError(
            f"the data set {hub['dataset']!r} has not the expected shape: {type(error).__name__} {error}.",
            hint="Load the texts from a folder with --suite-data.",
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, AptitudeError):
            raise
        raise AptitudeError(
            f"the texts of suite {name!r} are not bundled, and {hub['dataset']!r} cannot be loaded: {error}.",
            hint="Set --suite-data or ORBWEAVER_SUITE_DATA to a folder with prompts.parquet, or use core-50x20.",
        ) from error


def fetch_rows(dataset: str, configuration: str | None) -> Iterable[Mapping[str, Any]]:
    """Rows of the test split, read with the package `datasets`.

    Raises:
        AptitudeError: the package is missing. Network errors come as `OSError`.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise AptitudeError(
            "the texts of this suite are not bundled, and loading them from the model hub needs the package datasets.",
            hint="pip install datasets, or set --suite-data or ORBWEAVER_SUITE_DATA to a folder with prompts.parquet.",
        ) from error
    rows: Iterable[Mapping[str, Any]] = load_dataset(dataset, configuration, split="test")
    return rows


def _from_hub(row: Mapping[str, Any]) -> Question:
    options = [str(option) for option in row.get("options") or row["choices"]]
    answer = row.get("answer_index", row["answer"])
    if row.get("error_type") == "wrong_groundtruth" and str(row.get("correct_answer") or "").strip().isdigit():
        answer = int(str(row["correct_answer"]).strip())
    while options and options[-1] == "N/A":
        options.pop()
    return Question(str(row["question"]).strip(), tuple(options), LETTERS[int(answer)])


def _declared_tasks(declared: Mapping[str, Any]) -> tuple[Task, ...]:
    return tuple(
        Task(
            name=task,
            version=int(declared["version"]),
            summary=f"Multiple choice: {keywords[0]}.",
            keywords=tuple(keywords),
            language="en",
            domain=domain,
            modality="text",
            scorer="choice",
        )
        for domain, group in declared["tasks"].items()
        for task, keywords in group.items()
    )


def _assemble(
    name: str, declared: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], questions: Mapping[str, Question]
) -> Suite:
    """The suite from its declaration, its ids and its texts."""
    items, statistics, changed = [], {}, []
    for row in rows:
        question = questions[row["id"]]
        item = Item(
            id=row["id"],
            task=row["task"],
            shot=row["shot"],
            question=question.text,
            gold=question.letter,
            scorer="choice",
            difficulty=_difficulty(row["p_seen"]),
            options=question.options,
        )
        check_item(item)
        if text_sha(item) != row["sha"]:
            changed.append(item.id)
        items.append(item)
        statistics[item.id] = {"p_seen": row["p_seen"], "item_total_r": row["item_total_r"]}
    warnings: tuple[str, ...] = ()
    if changed:
        warnings = (f"{len(changed)} items read otherwise than when they were calibrated, {changed[0]!r} among them.",)
    return Suite(
        name,
        int(declared["version"]),
        declared["summary"],
        0,
        _declared_tasks(declared),
        tuple(items),
        statistics,
        warnings,
    )


def text_sha(item: Item) -> str:
    """16 hex digits over the rendered text, as the bundled list of ids holds them."""
    return hashlib.sha256(render_text(item).strip().encode()).hexdigest()[:16]


def _difficulty(p_seen: float) -> Difficulty:
    """From the share of known models that were right; all bundled items lie near one half."""
    return "hard" if p_seen < 0.45 else "easy" if p_seen > 0.55 else "medium"
