"""How far a run has come: one frozen value, and its rendering as a line for logs and terminals. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """State of a run. Times in seconds, money in USD (None where no price is known).

    Attributes:
        total: questions that will be asked at most.  done: those that are settled.
        reused: of these, answers taken from the store.  calls: calls sent by this run.
        right, answered: graded as right, and graded at all; `answered - right` were wrong.
        no_answer: replies in which no answer was found.  failed: calls that brought no reply.
    """

    total: int
    done: int = 0
    reused: int = 0
    calls: int = 0
    right: float = 0.0
    answered: int = 0
    no_answer: int = 0
    failed: int = 0
    cost_usd: float | None = None
    elapsed_s: float = 0.0
    eta_s: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among all replies; a reply without an answer is not right."""
        replies = self.answered + self.no_answer
        return self.right / replies if replies else None

    def as_record(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "accuracy": self.accuracy}


def line(progress: Progress, *, width: int = 0) -> str:
    """One line for people; with a bar of `width` characters where that is more than 0."""
    share = progress.done / progress.total if progress.total else 1.0
    bar = ""
    if width:
        full = round(share * width)
        bar = f"[{'#' * full}{'.' * (width - full)}] "
    parts = [f"{progress.done}/{progress.total}"]
    if progress.accuracy is not None:
        parts.append(f"{progress.accuracy:.0%} right")
    if progress.no_answer:
        parts.append(f"{progress.no_answer} without an answer")
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.cost_usd is not None:
        parts.append(f"${progress.cost_usd:.4f}")
    if progress.eta_s is not None and progress.done < progress.total:
        parts.append(f"{_duration(progress.eta_s)} left")
    elif progress.elapsed_s:
        parts.append(f"in {_duration(progress.elapsed_s)}")
    return bar + ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
