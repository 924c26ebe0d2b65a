"""The requests and answers of all speed measurements: fixed bytes, so that every server is measured with the same."""

from __future__ import annotations

import json
from typing import Any

EVENTS = 84
PAUSE_S = 0.005

ANSWER = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "mock-1",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Fine, thank you. " * 12}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100},
        "system_fingerprint": "fp_bench",
    }
).encode()


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1700000000, "model": "mock-1"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


STREAM = (
    _chunk({"role": "assistant", "content": ""}),
    *(_chunk({"content": f"word{index} "}) for index in range(EVENTS - 3)),
    _chunk({}, "stop"),
    b"data: [DONE]\n\n",
)
"""The 84 events of a streamed answer, its `[DONE]` included."""


def chat_body(model: str, *, stream: bool = False, ask: str = "How are you today?", pad: int = 0) -> bytes:
    """A usual chat request; `pad` makes its system message longer by that many characters."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant." + " " * pad},
            {"role": "user", "content": ask},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if stream:
        body["stream"] = True
    return json.dumps(body).encode()


def http_request(path: str, body: bytes, *, key: str | None = None, port: int = 80) -> bytes:
    """A whole HTTP/1.1 POST as the wire has it."""
    head = [
        f"POST {path} HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        "content-type: application/json",
        "accept: application/json",
        "user-agent: bench",
        f"content-length: {len(body)}",
    ]
    if key is not None:
        head.append(f"authorization: Bearer {key}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
