"""The static half: task and suite files become `Suite` values. The same seed gives the same items."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

from aptitude_tests.errors import AptitudeError
from aptitude_tests.generators import GENERATORS
from aptitude_tests.item import DIFFICULTIES, LANGUAGES, SHOTS, Draft, Item, Modality, Suite, Task
from aptitude_tests.scorers import SCORERS, check_item

HERE = Path(__file__).parent
TASKS_DIR = HERE / "tasks"
SUITES_DIR = HERE / "suites"
_TASK_KEYS = {"task", "version", "summary", "keywords", "language", "domain", "modality", "scorer"}
_OPTIONAL_KEYS = {"generator", "params", "instruction"}
_ITEM_KEYS = {"question", "gold", "options", "difficulty", "images", "tools", "id"}
_ATTEMPTS = 200


def build_suite(name: str = "core-50x20", *, seed: int = 0, shots: int = SHOTS) -> Suite:
    """A bundled suite of generated tasks, or a suite of one's own: a task file, or a folder of them.

    Args:
        seed: another seed gives a parallel form with other items of the same tasks.
        shots: items for each task; a written-out task with fewer gives those it has.
    Raises:
        AptitudeError: no such suite, or a file of it is broken.
    """
    path = Path(name)
    if is_path(name):
        files = sorted([*path.glob("*.jsonl"), *path.glob("*.yaml")]) if path.is_dir() else [path]
        if not files:
            raise AptitudeError(f"the folder {name!r} holds no task file.", hint="A task is one .jsonl or .yaml file.")
        declared: Mapping[str, Any] = {"suite": path.stem, "version": 1, "summary": f"Tasks of {path}."}
    else:
        declared = read_declaration(name)
        if "items" in declared:
            raise AptitudeError(
                f"the texts of suite {name!r} are not bundled.", hint="Load it with `suite_data.load_suite`."
            )
        files = [task_file(task) for task in declared["tasks"]]
    tasks: list[Task] = []
    items: list[Item] = []
    for file in files:
        task, rows = read_task(file)
        tasks.append(task)
        items += _make_items(task, rows, suite=str(declared["suite"]), seed=seed, shots=shots)
    _check_unique(tasks, items)
    return Suite(
        str(declared["suite"]), int(declared["version"]), str(declared["summary"]), seed, tuple(tasks), tuple(items)
    )


def is_path(name: str) -> bool:
    """True where a suite is named by a task file or a folder rather than by a bundled name."""
    return Path(name).suffix in (".jsonl", ".yaml") or Path(name).is_dir()


def bundled_suites() -> list[str]:
    """Names of the suites in this package."""
    return sorted(path.stem for path in SUITES_DIR.glob("*.yaml"))


def read_declaration(name: str) -> Mapping[str, Any]:
    """What the file of a bundled suite declares.

    Raises:
        AptitudeError: there is no such suite.
    """
    path = SUITES_DIR / f"{name}.yaml"
    if name not in bundled_suites():
        raise AptitudeError(
            f"unknown suite {name!r}.",
            hint=f"Bundled are {', '.join(bundled_suites())}; a .jsonl file or a folder of them is a suite too.",
        )
    return _read_yaml(path)


def task_file(name: str) -> Path:
    """The bundled file of a task.

    Raises:
        AptitudeError: there is none.
    """
    for suffix in (".yaml", ".jsonl"):
        path = TASKS_DIR / f"{name}{suffix}"
        if path.is_file():
            return path
    raise AptitudeError(f"unknown task {name!r}.", hint=f"A bundled task is a file in {TASKS_DIR}.")


def read_task(path: Path) -> tuple[Task, list[Mapping[str, Any]]]:
    """A task and its written-out items (none where they are generated).

    Raises:
        AptitudeError: the file is broken; the message names the line and the key.
    """
    if path.suffix == ".yaml":
        return _to_task(_read_yaml(path), str(path)), []
    rows = list(_read_jsonl(path))
    if len(rows) < 2:
        raise AptitudeError(
            f"{path}: no items.", hint="The first line declares the task, every further line holds one item."
        )
    task = _to_task(rows[0][1], f"{path}, line 1")
    if task.generator:
        raise AptitudeError(f"{path}: a generator and items.", hint="Declare a generated task in a .yaml file.")
    for number, row in rows[1:]:
        unknown = set(row) - _ITEM_KEYS
        if unknown or not {"question", "gold"} <= row.keys():
            fault = f"unknown key {sorted(unknown)[0]!r}" if unknown else "an item needs `question` and `gold`"
            raise AptitudeError(f"{path}, line {number}: {fault}.", hint=f"Known are {', '.join(sorted(_ITEM_KEYS))}.")
        if row.get("difficulty", "medium") not in DIFFICULTIES:
            raise AptitudeError(f"{path}, line {number}: difficulty {row['difficulty']!r} is not easy, medium or hard.")
    return task, [row for _, row in rows[1:]]


def _to_task(values: Mapping[str, Any], where: str) -> Task:
    missing, unknown = _TASK_KEYS - values.keys(), values.keys() - _TASK_KEYS - _OPTIONAL_KEYS
    if missing or unknown:
        fault = f"key {sorted(missing)[0]!r} is missing" if missing else f"unknown key {sorted(unknown)[0]!r}"
        raise AptitudeError(f"{where}: {fault}.", hint=f"A task declares {', '.join(sorted(_TASK_KEYS))}.")
    keywords = tuple(str(word) for word in values["keywords"])
    if len(keywords) != 5:
        raise AptitudeError(f"{where}: {len(keywords)} keywords, expected 5.")
    for key, known in (("language", LANGUAGES), ("modality", get_args(Modality))):
        if values[key] not in known:
            raise AptitudeError(f"{where}: {key} {values[key]!r} is not one of {', '.join(known)}.")
    generator = values.get("generator")
    try:
        SCORERS.get(values["scorer"])
        made_for = GENERATORS.get(generator).scorer if generator else values["scorer"]
    except LookupError as error:
        raise AptitudeError(f"{where}: {error}.") from error
    if made_for != values["scorer"]:
        raise AptitudeError(f"{where}: generator {generator!r} is for scorer {made_for!r}, not {values['scorer']!r}.")
    return Task(
        name=str(values["task"]),
        version=int(values["version"]),
        summary=str(values["summary"]),
        keywords=(keywords[0], keywords[1], keywords[2], keywords[3], keywords[4]),
        language=values["language"],
        domain=str(values["domain"]),
        modality=values["modality"],
        scorer=str(values["scorer"]),
        generator=generator,
        params=values.get("params", {}),
        instruction=values.get("instruction"),
    )


def _make_items(task: Task, rows: list[Mapping[str, Any]], *, suite: str, seed: int, shots: int) -> list[Item]:
    """The items of one task: every third easy, medium, hard, so that any prefix is spread over all three."""
    stream = random.Random(f"orbweaver|{task.name}|{task.version}|{seed}")
    if task.generator is None:
        picked = rows if len(rows) <= shots else stream.sample(rows, shots)
        return [_written_item(task, row, shot, suite) for shot, row in enumerate(picked)]
    make = GENERATORS.get(task.generator).make
    items: list[Item] = []
    taken: set[str] = set()
    for shot in range(shots):
        difficulty = DIFFICULTIES[shot % 3]
        for _ in range(_ATTEMPTS):
            draft = make(stream, difficulty, task.language, task.params)
            item = replace(
                _to_item(task, draft, shot, f"{suite}/{task.name}/v{task.version}/s{seed}/{shot:02d}"),
                difficulty=difficulty,
            )
            if item.question + "".join(picture.digest for picture in item.images) not in taken:
                break
        else:
            raise AptitudeError(
                f"task {task.name!r} made no {shots} different items from seed {seed}.", hint="Ask for fewer shots."
            )
        taken.add(item.question + "".join(picture.digest for picture in item.images))
        check_item(item)
        items.append(item)
    return items


def _to_item(task: Task, draft: Draft, shot: int, identity: str) -> Item:
    return Item(
        id=identity,
        task=task.name,
        shot=shot,
        question=draft.question,
        gold=draft.gold,
        scorer=task.scorer,
        language=task.language,
        options=draft.options,
        images=draft.images,
        tools=draft.tools,
        instruction=task.instruction,
    )


def _written_item(task: Task, row: Mapping[str, Any], shot: int, suite: str) -> Item:
    """An item as it stands in a file; its id follows its content, so that it survives another order of lines."""
    draft = Draft(str(row["question"]), row["gold"], tuple(row.get("options", ())), tools=tuple(row.get("tools", ())))
    item = replace(_to_item(task, draft, shot, ""), difficulty=row.get("difficulty", "medium"))
    item = replace(item, id=str(row.get("id") or f"{suite}/{task.name}/v{task.version}/{item.hash[:12]}"))
    check_item(item)
    return item


def _check_unique(tasks: Iterable[Task], items: Iterable[Item]) -> None:
    for kind, names in (("task", [task.name for task in tasks]), ("item", [item.id for item in items])):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise AptitudeError(f"the {kind} {name!r} is there twice.", hint=f"Every {kind} needs its own name.")
            seen.add(name)


@cache
def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        loaded = yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AptitudeError(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise AptitudeError(f"{path} holds no mapping.")
    return loaded


def _read_jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and object of every line that is not blank."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AptitudeError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AptitudeError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise AptitudeError(f"{path}, line {number}: not an object.")
        yield number, row
