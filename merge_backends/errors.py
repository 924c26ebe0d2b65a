"""One error tree for merging. Every error says what was wrong, with which value, and what would fix it.

MergeError
|-- RecipeError           the recipe cannot be read, or asks for something that is not supported
|   `-- UnknownNameError  no such method, parameter, model or mixture; names what is near
|-- CheckpointError       a checkpoint cannot be read, or holds NaN or infinity
|-- IncompatibleError     the models do not fit together (tokenizer, shapes, architecture, base)
|-- MemoryBudgetError     the merge would need more memory than it was given
|-- LicenceError          the licences of the parents do not allow the export
`-- BuildError            writing the result failed (disk full, target in use)
`gateway/cli/merge.py` and the engine show them to people; nothing else maps them.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MergeError(Exception):
    """Base of every error that merging raises on purpose.

    Args:
        message: one sentence with the offending value.
        fix: one sentence with what would help; may be empty.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message


class RecipeError(MergeError):
    """The recipe cannot be read or asks for something that is not supported; the message names the key."""


class UnknownNameError(RecipeError, LookupError):
    """There is no such name.

    Args:
        kind: what the name was meant to be, as in "merge method".
        name: the name that was asked for.
        known: all names there are.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        fix = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are: {', '.join(names) or 'none'}."
        super().__init__(f"There is no {kind} {name!r}.", fix)
        self.kind = kind
        self.name = name
        self.near = near


class CheckpointError(MergeError):
    """A checkpoint cannot be read or must not be used."""


class IncompatibleError(MergeError):
    """The models do not fit together; nothing is merged in part."""


class MemoryBudgetError(MergeError):
    """The merge would need more bytes than the budget; raised before anything is allocated."""


class LicenceError(MergeError):
    """The licences of the parents do not allow what was asked."""


class BuildError(MergeError):
    """The result could not be written; nothing of it is left behind."""
