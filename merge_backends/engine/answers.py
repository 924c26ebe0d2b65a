"""Answers as OpenAI writes them: whole objects, and the events of a stream."""

from __future__ import annotations

import base64
import secrets
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from merge_backends.engine.asked import Asked
from merge_backends.engine.engine import Stream
from merge_backends.engine.transcript import Piece, TokenLikely

DONE = b"data: [DONE]\n\n"


class Answer:
    """Builds the answer to one request: its id, time and model are the same in every event."""

    def __init__(self, asked: Asked, stream: Stream) -> None:
        self._asked = asked
        self._stream = stream
        kind = "chat.completion" if asked.is_chat else "text_completion"
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if asked.is_chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": f"{kind}.chunk" if asked.is_chat and asked.stream else kind,
            "created": int(time.time()),
            "model": asked.model,
            "system_fingerprint": stream.model.fingerprint,
        }
        self._tokens: dict[int, int] = {}
        self._offsets: dict[int, int] = {}

    def whole(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """The object of a request without `stream`."""
        texts: dict[int, list[Piece]] = {index: [] for index in range(self._stream.answers)}
        for piece in pieces:
            texts[piece.answer].append(piece)
            self._tokens[piece.answer] = piece.tokens
        choices = []
        for index, some in texts.items():
            text = "".join(piece.text for piece in some)
            choice: dict[str, Any] = {"index": index}
            if self._asked.is_chat:
                choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            else:
                choice["text"] = text
            choice["logprobs"] = self._logprobs(index, [each for piece in some for each in piece.logprobs])
            choice["finish_reason"] = some[-1].finish
            choices.append(choice)
        return {**self._head, "choices": choices, "usage": self._usage()}

    def first_events(self) -> bytes:
        """What a chat stream begins with: the role of each answer."""
        if not self._asked.is_chat:
            return b""
        delta = {"role": "assistant", "content": "", "refusal": None}
        choices = (
            {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            for index in range(self._stream.answers)
        )
        return b"".join(self._event([choice]) for choice in choices)

    def events(self, pieces: Sequence[Piece]) -> bytes:
        """The events of some pieces; the end of an answer is an event of its own in a chat stream."""
        return b"".join(self._piece_events(piece) for piece in pieces)

    def last_events(self) -> bytes:
        """Usage where it was asked for, and the end."""
        if not self._asked.include_usage:
            return DONE
        return _data({**self._head, "choices": [], "usage": self._usage()}) + DONE

    def _piece_events(self, piece: Piece) -> bytes:
        self._tokens[piece.answer] = piece.tokens
        logprobs = self._logprobs(piece.answer, piece.logprobs) if piece.logprobs else None
        if not self._asked.is_chat:
            choice = {"index": piece.answer, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish}
            return self._event([choice])
        events = b""
        if piece.text or logprobs:
            delta = {"content": piece.text}
            events = self._event([{"index": piece.answer, "delta": delta, "logprobs": logprobs, "finish_reason": None}])
        if piece.finish is not None:
            events += self._event(
                [{"index": piece.answer, "delta": {}, "logprobs": None, "finish_reason": piece.finish}]
            )
        return events

    def _event(self, choices: list[dict[str, Any]]) -> bytes:
        body = {**self._head, "choices": choices}
        if self._asked.include_usage:
            body["usage"] = None
        return _data(body)

    def _usage(self) -> dict[str, Any]:
        made = sum(self._tokens.values())
        asked = self._stream.prompt_tokens
        return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}

    def _logprobs(self, index: int, likely: Sequence[TokenLikely]) -> dict[str, Any] | None:
        if self._asked.sampling.top_logprobs is None:
            return None
        if self._asked.is_chat:
            content = [
                {**_token(each.token, each.logprob), "top_logprobs": [_token(*top) for top in each.top]}
                for each in likely
            ]
            return {"content": content, "refusal": None}
        return {
            "tokens": [_shown(each.token) for each in likely],
            "token_logprobs": [each.logprob for each in likely],
            "top_logprobs": [{_shown(token): logprob for token, logprob in each.top} for each in likely],
            "text_offset": [each.offset for each in likely],
        }


def embeddings(name: str, vectors: Sequence[Sequence[float]], tokens: int, *, packed: bool) -> dict[str, Any]:
    """The answer of /v1/embeddings; `packed` gives base64 of little-endian float32."""
    data = [
        {"object": "embedding", "index": index, "embedding": _pack(vector) if packed else list(vector)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def _pack(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _token(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _shown(token), "logprob": logprob, "bytes": list(token)}


def _shown(token: bytes) -> str:
    return token.decode("utf-8", "replace")


def _data(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
