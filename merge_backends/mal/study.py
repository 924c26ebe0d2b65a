"""MAL on MiniLM-family checkpoints of other depth or width: `python -m merge_backends.mal.study --data DIR`.

Donors are shuffled before they are handed over, so that every correspondence has to be found. Steps are accepted on
validation rows; test rows are read once per base and once per merge.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merge_backends.mal.layout import HEADS, INNER, STREAM, Space
from merge_backends.mal.matching import Aligner, Similarity
from merge_backends.mal.method import Network, side_of
from merge_backends.mal.search import Reading, SearchSettings, Step, search
from merge_backends.mal.surgery import shuffled
from merge_backends.mal.zoo import Kind, Student, disguised, make_student, probe, stranger, tuned, vectors
from merge_backends.study.data import Rows, Sizes, StudyTask, load_tasks, load_tokenizer
from merge_backends.study.encoder import bundled_base
from merge_backends.study.heads import Head

log = logging.getLogger(__name__)
SIZES = Sizes(train=1200, validation=300, test=1000)
ACCEPTANCE_ROWS = 200
RESAMPLES = 2000


@dataclass(frozen=True)
class Case:
    """One question: these donors (an architecture and the task it was tuned on) for this base on these tasks."""

    name: str
    base: Kind
    donors: tuple[tuple[Kind, str], ...]
    tasks: tuple[str, ...]
    with_stranger: bool = False
    settings: SearchSettings = field(default_factory=SearchSettings)


def cases(first: str, second: str) -> list[Case]:
    """The cases of the study; `first` is the task with the largest headroom."""
    fold = SearchSettings(fold=True)
    return [
        Case("shallower donor", "full", (("shallow", first),), (first,)),
        Case("narrower donor", "full", (("narrow", first),), (first,)),
        Case("deeper donor", "shallow", (("full", first),), (first,)),
        Case("wider donor", "narrow", (("full", first),), (first,)),
        Case("wider donor, folded", "narrow", (("full", first),), (first,), settings=fold),
        Case("zoo of three", "full", (("shallow", first), ("narrow", second)), (first, second), with_stranger=True),
    ]


@dataclass(frozen=True)
class Outcome:
    """What one case gave with one seed; `right` holds per task and test row whether base and merge were right."""

    case: str
    seed: int
    base: dict[str, float]
    donors: dict[str, float]
    merged: dict[str, float]
    validation: tuple[Reading, Reading]
    steps: tuple[Step, ...]
    seconds: float
    right: dict[str, tuple[Tensor, Tensor]]


class Bench:
    """Tasks, heads and tuned donors of one seed, made once each."""

    def __init__(self, data: Path, names: Sequence[str], cache: Path, seed: int) -> None:
        self.cache, self.seed = cache, seed
        tokenizer = load_tokenizer(bundled_base())
        self.tasks = {task.name: task for task in load_tasks(data, names, tokenizer, SIZES, seed=seed)}
        self._students: dict[Kind, Student] = {}
        self._heads: dict[tuple[Kind, str], Head] = {}

    def student(self, kind: Kind) -> Student:
        if kind not in self._students:
            self._students[kind] = make_student(kind, self.cache, self.seed)
        return self._students[kind]

    def head(self, kind: Kind, task: str) -> Head:
        """Fitted on the untuned student's vectors, then frozen."""
        if (kind, task) not in self._heads:
            self._heads[kind, task] = probe(self.student(kind), self.tasks[task])
        return self._heads[kind, task]

    def donor(self, kind: Kind, task: str) -> Network:
        """Tuned under the full model's head."""
        return tuned(self.student(kind), self.tasks[task], self.head("full", task), self.cache, self.seed)

    def donor_accuracy(self, kind: Kind, task: str) -> float:
        """Test accuracy of the donor by itself, under the head that it was tuned with."""
        head, kept = self.head("full", task), self.student(kind).stream
        own = head if kept is None else Head(head.weight[:, kept].contiguous(), head.bias)
        rows = self.tasks[task].test
        return own.accuracy(vectors(self.student(kind), self.donor(kind, task).weights, rows), rows.labels)

    def right(self, kind: Kind, task: str, weights: Mapping[str, Tensor]) -> Tensor:
        """`(test rows,)` whether the answer is right, with the base student's own head."""
        rows = self.tasks[task].test
        logits = self.head(kind, task).logits(vectors(self.student(kind), weights, rows))
        return (logits.argmax(-1) == rows.labels).float()

    def read(self, kind: Kind, tasks: Sequence[str], weights: Mapping[str, Tensor]) -> Reading:
        """Loss and accuracy on the validation rows, mean over the tasks; bf16 products, 4 times as fast here."""
        readings = []
        for name in tasks:
            task: StudyTask = self.tasks[name]
            rows: Rows = task.validation.take(ACCEPTANCE_ROWS)
            logits = self.head(kind, name).logits(vectors(self.student(kind), weights, rows, half=True))
            loss = torch.nn.functional.cross_entropy(logits, rows.labels)
            readings.append(Reading(float(loss), float((logits.argmax(-1) == rows.labels).float().mean())))
        count = len(readings)
        return Reading(sum(r.loss for r in readings) / count, sum(r.score for r in readings) / count)


def run_case(case: Case, bench: Bench) -> Outcome:
    """Searches on validation rows, then reads the test rows."""
    started = time.monotonic()
    base = bench.student(case.base).network
    donors = [(f"{kind} {task}", side_of(disguised(bench.donor(kind, task), bench.seed))) for kind, task in case.donors]
    if case.with_stranger:
        donors.append(("stranger", side_of(stranger(bench.student("shallow").network, bench.seed))))

    def validate(weights: Mapping[str, Tensor]) -> Reading:
        return bench.read(case.base, case.tasks, weights)

    merged, steps = search(side_of(base), donors, validate, case.settings)
    right = {
        task: (bench.right(case.base, task, base.weights), bench.right(case.base, task, merged)) for task in case.tasks
    }
    taken = [step for step in steps if step.accepted]
    last = taken[-1].readings[taken[-1].alphas.index(taken[-1].accepted)] if taken else steps[0].before
    return Outcome(
        case.name,
        bench.seed,
        {task: float(before.mean()) for task, (before, _) in right.items()},
        {f"{kind} {task}": bench.donor_accuracy(kind, task) for kind, task in case.donors},
        {task: float(after.mean()) for task, (_, after) in right.items()},
        (steps[0].before, last),
        tuple(steps),
        time.monotonic() - started,
        right,
    )


def gain_interval(outcomes: Sequence[Outcome], task: str) -> tuple[float, float, float]:
    """Mean gain over the seeds with its 95 % interval: paired bootstrap over the test rows, which all seeds share."""
    gains = torch.stack([after - before for before, after in (outcome.right[task] for outcome in outcomes)]).mean(0)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(len(gains), (RESAMPLES, len(gains)), generator=generator)
    means = gains[draws].mean(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975])).tolist()
    return float(gains.mean()), low, high


def recovery(bench: Bench, kind: Kind, similarity: Similarity, task: str) -> dict[str, float]:
    """Share of the tuned, shuffled donor's units laid on the unit of MiniLM that they came from, by kind of space."""
    student, donor = bench.student(kind), bench.donor(kind, task)
    moved, orders = shuffled(donor, seed=bench.seed)
    aligner = Aligner(side_of(bench.student("full").network), side_of(moved), similarity)
    alignment = aligner.align("proportional" if kind != "shallow" else (0, None, 1, 2, None, 3))
    found: dict[str, list[float]] = {}
    for space, match in alignment.matches.items():
        if space.kind not in (STREAM, HEADS, INNER):
            continue
        depth = None if space.layer is None else alignment.depths[space.layer]
        origin = student.kept.get(Space(space.kind, depth), torch.arange(10_000))
        order = orders[Space(space.kind, depth)]
        hits = (origin[order[match.donor]] == match.base).float().sum() / len(order)
        found.setdefault(space.kind, []).append(float(hits))
    return {name: sum(values) / len(values) for name, values in found.items()}


def similar_depths(bench: Bench, task: str) -> tuple[int | None, ...]:
    """Which layer of the tuned shallow donor is most like each layer of MiniLM."""
    donor = disguised(bench.donor("shallow", task), bench.seed)
    return Aligner(side_of(bench.student("full").network), side_of(donor)).align("similar").depths


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row per case and task."""
    rows = []
    for name in dict.fromkeys(outcome.case for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.case == name]
        steps = [step for outcome in own for step in outcome.steps]
        taken = [(step, step.readings[step.alphas.index(step.accepted)]) for step in steps if step.accepted]
        for task in own[0].base:
            gain, low, high = gain_interval(own, task)
            rows.append(
                {
                    "case": name, "task": task, "seeds": len(own), "gain": gain, "low": low, "high": high,
                    "base": sum(outcome.base[task] for outcome in own) / len(own),
                    "merged": sum(outcome.merged[task] for outcome in own) / len(own),
                    "donors": {k: sum(o.donors[k] for o in own) / len(own) for k in own[0].donors},
                    "accepted": len(taken), "steps": len(steps),
                    "worst_accepted_score_change": min((after.score - step.before.score for step, after in taken),
                                                       default=0.0),
                    "shares": sorted(step.accepted for step, _ in taken),
                    "seconds": sum(outcome.seconds for outcome in own) / len(own),
                }
            )  # fmt: skip
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary as text."""
    head = f"{'case':<22}{'task':<11}{'base':>7}{'merged':>8}{'gain, 95 % interval':>28}{'accepted':>11}  donors alone"
    lines = [head]
    for row in rows:
        interval = f"{100 * row['gain']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        donors = ", ".join(f"{name} {100 * value:.1f}" for name, value in row["donors"].items())
        lines.append(
            f"{row['case']:<22}{row['task']:<11}{100 * row['base']:>7.1f}{100 * row['merged']:>8.1f}"
            f"{interval:>28}{row['accepted']:>6} / {row['steps']:<3} {donors}"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the cases for each seed and prints the table; everything else goes to --out as JSON."""
    parser = argparse.ArgumentParser(prog="python -m merge_backends.mal.study", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Parquet files, one per task")
    parser.add_argument("--tasks", default="trec6,banking77", help="two tasks: the first with the larger headroom")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cases", default="", help="names of cases, comma separated; all when empty")
    parser.add_argument("--cache", type=Path, default=Path(".cache/mal_study"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    first, second = given.tasks.split(",")
    wanted = [case for case in cases(first, second) if not given.cases or case.name in given.cases.split(",")]
    outcomes: list[Outcome] = []
    laws: list[dict[str, Any]] = []
    for seed in map(int, given.seeds.split(",")):
        bench = Bench(given.data, (first, second), given.cache, seed)
        for case in wanted:
            outcomes.append(run_case(case, bench))
            log.info("seed %d, so far:\n%s", seed, table(summary(outcomes)))
            if given.out is not None:
                write(given.out, outcomes, laws)
        measures: tuple[Similarity, ...] = ("distance", "product")
        kinds: tuple[Kind, ...] = ("shallow", "narrow")
        for kind in kinds:
            for similarity in measures:
                found = recovery(bench, kind, similarity, first)
                laws.append({"seed": seed, "donor": kind, "similarity": similarity, "recovered": found})
    # Two dozen assignments of 1536 units: one seed will do.
    laws.append({"seed": bench.seed, "similar_depths": similar_depths(bench, first)})
    sys.stdout.write(table(summary(outcomes)))
    for law in laws:
        sys.stdout.write(json.dumps(law) + "\n")
    if given.out is not None:
        write(given.out, outcomes, laws)


def write(path: Path, outcomes: Sequence[Outcome], laws: Sequence[Mapping[str, Any]]) -> None:
    """The report so far as JSON: rows, laws, and every step of every search."""
    details = [{**asdict(outcome), "right": None} for outcome in outcomes]
    path.write_text(json.dumps({"rows": summary(outcomes), "laws": laws, "outcomes": details}, indent=1) + "\n")


if __name__ == "__main__":
    main()
