"""Request body -> `Features`: what routing needs to know of a request. Pure, linear in the body, no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.registry.records import Ability, Endpoint
from gateway.routing.ask import newest_ask, text_of
from gateway.routing.language import guess_language

# A picture in "high" detail costs 765 tokens at the size most clients send (OpenAI vision pricing, 1024 x 1024).
IMAGE_TOKENS = 765
AUDIO_TOKENS = 600
MESSAGE_TOKENS = 4
CODE_MARKS = ("```", "def ", "class ", "#include", "function ", "SELECT ", "import ", "=> {", "</")


@dataclass(frozen=True, slots=True)
class Features:
    """What a request asks for. Token counts are estimates; `needs` holds what a candidate must be able to do."""

    ask: str
    prompt_tokens: int
    max_output_tokens: int | None
    needs: frozenset[Ability]
    in_tool_loop: bool
    continues: bool
    turns: int
    language: str
    has_code: bool
    images: int
    opening: str

    def summary(self) -> dict[str, Any]:
        """For logs and explanations: no text."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "max_output_tokens": self.max_output_tokens,
            "needs": sorted(self.needs),
            "in_tool_loop": self.in_tool_loop,
            "turns": self.turns,
            "language": self.language,
            "has_code": self.has_code,
            "images": self.images,
            "ask_chars": len(self.ask),
        }


def extract_features(body: dict[str, Any], endpoint: Endpoint) -> Features:
    """Read a parsed request body. Never raises on odd shapes: what cannot be read counts as absent."""
    messages = as_messages(body, endpoint)
    kinds = [kind for message in messages for kind in _part_kinds(message)]
    images = sum(kind in ("image_url", "input_image", "image") for kind in kinds)
    ask = newest_ask(messages)
    roles = [message.get("role") for message in messages if isinstance(message, dict)]
    return Features(
        ask=ask,
        prompt_tokens=estimate_tokens(body),
        max_output_tokens=_max_output(body),
        needs=_needs(body, kinds, images),
        in_tool_loop=bool(roles) and roles[-1] in ("tool", "function"),
        continues="assistant" in roles or "tool" in roles,
        turns=roles.count("user"),
        language=guess_language(ask),
        has_code=any(mark in ask for mark in CODE_MARKS),
        images=images,
        opening=_opening(messages),
    )


def as_messages(body: dict[str, Any], endpoint: Endpoint) -> list[Any]:
    """The conversation as chat messages, whichever endpoint's shape it came in."""
    if endpoint is Endpoint.CHAT:
        messages = body.get("messages")
        return messages if isinstance(messages, list) else []
    given = body.get("prompt") if endpoint is Endpoint.COMPLETIONS else body.get("input")
    head = [{"role": "system", "content": body["instructions"]}] if isinstance(body.get("instructions"), str) else []
    if isinstance(given, str):
        return [*head, {"role": "user", "content": given}]
    if not isinstance(given, list):
        return head
    if endpoint is not Endpoint.RESPONSES:
        return [*head, {"role": "user", "content": "\n".join(item for item in given if isinstance(item, str))}]
    return [*head, *(_as_message(item) for item in given if isinstance(item, dict))]


def _as_message(item: dict[str, Any]) -> dict[str, Any]:
    """An item of a Responses `input` as a chat message."""
    kind = item.get("type", "message")
    if kind in ("function_call_output", "custom_tool_call_output", "computer_call_output", "local_shell_call_output"):
        return {"role": "tool", "content": item.get("output")}
    if kind in ("function_call", "custom_tool_call", "reasoning"):
        return {"role": "assistant", "content": item.get("arguments")}
    return item


def estimate_tokens(body: dict[str, Any]) -> int:
    """Prompt tokens, estimated: a quarter of ASCII characters, a third of UTF-8 bytes otherwise."""
    total = 0
    for message in _everything_said(body):
        total += MESSAGE_TOKENS
        content = message.get("content")
        total += _text_tokens(text_of(content))
        for kind in _part_kinds(message):
            total += IMAGE_TOKENS if "image" in kind else AUDIO_TOKENS if "audio" in kind else 0
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            total += sum(_call_tokens(call) for call in calls)
    tools = body.get("tools")
    return max(1, total + (_json_tokens(tools) if isinstance(tools, list) else 0))


def _everything_said(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES):
        field = {"chat/completions": "messages", "completions": "prompt", "responses": "input"}[endpoint.value]
        if field in body:
            for message in as_messages(body, endpoint):
                if isinstance(message, dict):
                    yield message


def _text_tokens(text: str) -> int:
    return len(text) // 4 if text.isascii() else len(text.encode("utf-8", "surrogatepass")) // 3


def _call_tokens(call: Any) -> int:
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return 8 + (_text_tokens(arguments) if isinstance(arguments, str) else 0)


def _json_tokens(value: Any, depth: int = 0) -> int:
    """Tokens of a JSON value, without serialising it; bounded in depth."""
    if isinstance(value, str):
        return 1 + _text_tokens(value)
    if depth > 12:
        return 1
    if isinstance(value, dict):
        return sum(2 + len(str(key)) // 4 + _json_tokens(item, depth + 1) for key, item in value.items())
    if isinstance(value, list):
        return sum(_json_tokens(item, depth + 1) for item in value)
    return 1


def _part_kinds(message: Any) -> Iterator[str]:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        for part in content:
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str):
                yield kind


def _needs(body: dict[str, Any], kinds: list[str], images: int) -> frozenset[Ability]:
    needs = set()
    if images:
        needs.add(Ability.VISION)
    if "input_audio" in kinds or _asks_for_audio(body):
        needs.add(Ability.AUDIO)
    if body.get("tools") or body.get("functions"):
        needs.add(Ability.TOOLS)
    if _format_type(body) == "json_schema":
        needs.add(Ability.JSON_SCHEMA)
    if body.get("logprobs"):
        needs.add(Ability.LOGPROBS)
    if isinstance(body.get("n"), int) and body["n"] > 1:
        needs.add(Ability.N)
    return frozenset(needs)


def _asks_for_audio(body: dict[str, Any]) -> bool:
    modalities = body.get("modalities")
    return isinstance(modalities, list) and "audio" in modalities


def _format_type(body: dict[str, Any]) -> str | None:
    """`response_format.type` of chat, or `text.format.type` of Responses."""
    text = body.get("text")
    place = body.get("response_format") or (text.get("format") if isinstance(text, dict) else None)
    kind = place.get("type") if isinstance(place, dict) else None
    return kind if isinstance(kind, str) else None


def _max_output(body: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = body.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _opening(messages: list[Any]) -> str:
    """System text and first user turn: what stays the same through a conversation, so it can name one."""
    opening = []
    for message in messages:
        if isinstance(message, dict) and message.get("role") in ("system", "developer", "user"):
            opening.append(text_of(message.get("content"))[:4000])
            if message["role"] == "user":
                break
    return "\x1f".join(opening)
