"""What goes wrong with tasks, suites and their data: one error, with the value at fault and the fix."""

from __future__ import annotations


class AptitudeError(ValueError):
    """A task, a suite or its data cannot be used.

    Args:
        message: one sentence with the offending value.
        hint: what would fix it, one sentence.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message
