"""What `orbweaver eval` finds, as one JSON value."""

from __future__ import annotations

from pydantic import BaseModel

from gateway.evaluation.figures import Run, Single
from gateway.evaluation.grading import Grading
from gateway.evaluation.offline import Agreement


class Registered(BaseModel):
    """One model as `models add` left it: the suite it answered and how many calls that took."""

    name: str
    suite: str | None
    calls: int
    known: bool
    seconds: float


class Books(BaseModel):
    """The gateway's own ledger against what the client saw: requests, decisions and money."""

    asked: int
    decisions: int
    repeated: int
    ledger_usd: float
    expected_usd: float

    @property
    def balanced(self) -> bool:
        tolerance = 1e-6 + 1e-6 * self.expected_usd
        whole = self.decisions == self.asked and self.repeated == 0
        return whole and abs(self.ledger_usd - self.expected_usd) <= tolerance


class Faults(BaseModel):
    """The same prompts with an upstream that fails and hangs: every request ends, none is lost or doubled."""

    run: Run
    decisions: int
    repeated: int
    without_reason: int

    @property
    def accounted(self) -> bool:
        return self.decisions == self.run.asked and self.repeated == 0 and self.without_reason == 0


class EvalReport(BaseModel):
    """One pool, end to end over HTTP."""

    date: str
    command: str
    commit: str
    split: str
    prompts: int
    datasets: dict[str, int]
    artifact: str
    best_single: str
    models: list[Registered]
    singles: list[Single]
    runs: list[Run]
    agreement: Agreement
    grading: Grading
    books: Books
    faults: Faults | None = None
    notes: list[str] = []

    @property
    def problems(self) -> list[str]:
        """What makes the run a failure, whatever the accuracy."""
        found = []
        for run in self.runs:
            if run.answered != run.asked:
                found.append(f"{run.asked - run.answered} requests were not answered at quality {run.quality:g}")
            if run.as_recorded != run.answered:
                found.append(f"{run.answered - run.as_recorded} answers differ from the recorded ones")
        if not self.agreement.agrees:
            found.append(f"HTTP and offline differ: {self.agreement}")
        if not self.books.balanced:
            found.append(f"the ledger does not add up: {self.books}")
        if self.faults is not None and not self.faults.accounted:
            found.append(f"requests were lost or doubled under faults: {self.faults}")
        return found
