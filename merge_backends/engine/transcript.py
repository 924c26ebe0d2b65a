"""One answer while it is made: tokens in, pieces of text with log probabilities out, and why it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from merge_backends.engine.sampling import Likely
from merge_backends.engine.text import StopFilter, Vocabulary

FinishReason = Literal["stop", "length"]


class TokenLikely(NamedTuple):
    """A token of the answer as bytes with its log probability, the most probable ones, and where its text begins."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]
    offset: int


class Piece(NamedTuple):
    """What one or more tokens added to an answer, which is known by its number; `tokens` counts all tokens so far."""

    answer: int
    text: str
    logprobs: tuple[TokenLikely, ...]
    finish: FinishReason | None
    tokens: int


class Transcript:
    """Collects one answer and emits a piece whenever text is certain."""

    def __init__(
        self,
        index: int,
        vocabulary: Vocabulary,
        emit: Callable[[Piece], None],
        *,
        ends: frozenset[int],
        stops: Sequence[str],
        limit: int,
    ) -> None:
        self._index = index
        self._vocabulary = vocabulary
        self._emit = emit
        self._ends = ends
        self._limit = limit
        self._decoder = vocabulary.decoder()
        self._filter = StopFilter(stops)
        self._likely: list[TokenLikely] = []
        self._tokens = 0
        self._decoded = 0
        self._emitted = 0

    def take(self, token: int, likely: Likely | None) -> bool:
        """Add a token; True where it ends the answer."""
        self._tokens += 1
        if token in self._ends:
            return self._finish("stop", "")
        if likely is not None:
            self._likely.append(self._told(token, likely))
        text = self._decoder.push(token)
        self._decoded += len(text)
        certain = self._filter.push(text)
        if self._filter.stopped:
            return self._finish("stop", certain, cut=True)
        if self._tokens >= self._limit:
            return self._finish("length", certain)
        if certain:
            self._send(certain, None)
        return False

    def _finish(self, reason: FinishReason, certain: str, *, cut: bool = False) -> bool:
        if not cut:
            certain += self._filter.push(self._decoder.flush())
            if self._filter.stopped:
                reason = "stop"
            certain += self._filter.flush()
        else:
            end = self._emitted + len(certain)
            self._likely = [each for each in self._likely if each.offset < end]
        self._send(certain, reason)
        return True

    def _send(self, text: str, finish: FinishReason | None) -> None:
        self._emitted += len(text)
        likely, self._likely = tuple(self._likely), []
        self._emit(Piece(self._index, text, likely, finish, self._tokens))

    def _told(self, token: int, likely: Likely) -> TokenLikely:
        told = self._vocabulary.token_bytes
        top = tuple((told(each), logprob) for each, logprob in likely.top)
        return TokenLikely(told(token), likely.logprob, top, self._decoded)
