"""What a client asked for: bodies of chat, completions and embeddings, checked; the unsupported is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_backends.engine.errors import EngineError, invalid, unsupported
from merge_backends.engine.sampling import Sampling

MAX_STOPS = 4
MAX_CHOICES = 16
MAX_TOP_LOGPROBS = 20
ROLES = ("system", "developer", "user", "assistant")

#: Fields without an effect on the answer; OpenAI's clients send them.
WITHOUT_EFFECT = frozenset(
    {"user", "metadata", "store", "service_tier", "parallel_tool_calls", "prompt_cache_key", "safety_identifier",
     "prompt_cache_retention", "orbweaver"}
)  # fmt: skip
COMMON = frozenset(
    {"model", "stream", "stream_options", "temperature", "top_p", "n", "stop", "seed", "max_tokens", "logprobs",
     "presence_penalty", "frequency_penalty", "logit_bias"}
)  # fmt: skip
CHAT = COMMON | {"messages", "max_completion_tokens", "top_logprobs", "response_format", "modalities"}
COMPLETION = COMMON | {"prompt", "echo", "best_of", "suffix"}
REFUSED = {
    "tools": "Tools are not supported by local models here.",
    "tool_choice": "Tools are not supported by local models here.",
    "functions": "Functions are not supported by local models here.",
    "function_call": "Functions are not supported by local models here.",
    "audio": "Audio is not supported.",
    "prediction": "Predicted outputs are not supported.",
    "reasoning_effort": "The models here do not reason apart from their answer.",
    "verbosity": "Verbosity is not supported.",
    "web_search_options": "Web search is not supported.",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One generation request. `prompts` holds texts or token lists; chat has `messages` instead.

    `limit` is None where the client gave none: chat answers then go on to the end of the context.
    """

    model: str
    preference: Mapping[str, float] | None
    messages: tuple[dict[str, str], ...]
    prompts: tuple[str | list[int], ...]
    sampling: Sampling
    seed: int | None
    choices: int
    limit: int | None
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool

    @property
    def is_chat(self) -> bool:
        return bool(self.messages)


def read_chat(body: Any) -> Asked:
    """A chat request.

    Raises:
        EngineError: 400 with the field at fault.
    """
    fields = _fields(body, CHAT)
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("messages", "messages must be a list with at least one message.", "missing_required_parameter")
    form = fields.get("response_format")
    if form is not None and (not isinstance(form, dict) or form.get("type") != "text"):
        raise unsupported("response_format", "Only plain text answers are supported: response_format.type 'text'.")
    if fields.get("modalities") not in (None, ["text"]):
        raise unsupported("modalities", "Only text is supported.")
    wants = _boolean(fields, "logprobs")
    top = _integer(fields, "top_logprobs", 0, MAX_TOP_LOGPROBS)
    if top is not None and not wants:
        raise invalid("top_logprobs", "top_logprobs needs logprobs: true.")
    most, old = (_integer(fields, name, 1, 2**31) for name in ("max_completion_tokens", "max_tokens"))
    read = tuple(_message(each, f"messages[{at}]") for at, each in enumerate(messages))
    return _asked(fields, messages=read, prompts=(), top=(top or 0) if wants else None, limit=most or old)


def read_completion(body: Any) -> Asked:
    """A completions request; without `max_tokens` 16 tokens, as OpenAI does it."""
    fields = _fields(body, COMPLETION)
    if _boolean(fields, "echo"):
        raise unsupported("echo", "echo is not supported.")
    if fields.get("suffix"):
        raise unsupported("suffix", "suffix is not supported.")
    if _integer(fields, "best_of", 1, 20) not in (None, 1):
        raise unsupported("best_of", "best_of is not supported; ask for several answers with n.")
    top = _integer(fields, "logprobs", 0, 5)
    limit = _integer(fields, "max_tokens", 1, 2**31)
    prompts = read_inputs(fields.get("prompt"), "prompt")
    return _asked(fields, messages=(), prompts=prompts, top=top, limit=16 if limit is None else limit)


@dataclass(frozen=True, slots=True)
class AskedVectors:
    """An embeddings request; `base64` packs the vectors as little-endian float32."""

    model: str
    inputs: tuple[str | list[int], ...]
    base64: bool
    dimensions: int | None


def read_embeddings(body: Any) -> AskedVectors:
    """An embeddings request."""
    fields = _fields(body, frozenset({"model", "input", "encoding_format", "dimensions"}))
    form = fields.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise invalid("encoding_format", f"encoding_format is {form!r}; it must be 'float' or 'base64'.")
    dimensions = _integer(fields, "dimensions", 1, 2**20)
    return AskedVectors(_model(fields), read_inputs(fields.get("input"), "input"), form == "base64", dimensions)


def read_inputs(value: Any, name: str) -> tuple[str | list[int], ...]:
    """One text, one list of tokens, or a list of either."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value:
        if all(isinstance(each, str) for each in value):
            return tuple(value)
        if _are_tokens(value):
            return (value,)
        if all(isinstance(each, list) and each and _are_tokens(each) for each in value):
            return tuple(value)
    if value is None:
        raise invalid(name, f"{name} is missing.", "missing_required_parameter")
    raise invalid(name, f"{name} must be a text, a list of tokens, or a list of these that is not empty.")


def _asked(
    fields: Mapping[str, Any],
    *,
    messages: tuple[dict[str, str], ...],
    prompts: tuple[str | list[int], ...],
    top: int | None,
    limit: int | None,
) -> Asked:
    stream = _boolean(fields, "stream")
    options = fields.get("stream_options")
    if options is not None and not stream:
        raise invalid("stream_options", "stream_options is only allowed with stream: true.")
    if options is not None and not isinstance(options, dict):
        raise invalid("stream_options", "stream_options must be an object.")
    sampling = Sampling(
        temperature=_number(fields, "temperature", 0, 2, 1.0),
        top_p=_number(fields, "top_p", 0, 1, 1.0),
        presence_penalty=_number(fields, "presence_penalty", -2, 2, 0.0),
        frequency_penalty=_number(fields, "frequency_penalty", -2, 2, 0.0),
        logit_bias=_bias(fields.get("logit_bias")),
        top_logprobs=top,
    )
    return Asked(
        model=_model(fields),
        preference=_preference(fields.get("orbweaver")),
        messages=messages,
        prompts=prompts,
        sampling=sampling,
        seed=_integer(fields, "seed", -(2**63), 2**63),
        choices=_integer(fields, "n", 1, MAX_CHOICES) or 1,
        limit=limit,
        stops=_stops(fields.get("stop")),
        stream=stream,
        include_usage=bool(options and _boolean(options, "include_usage")),
    )


def _fields(body: Any, known: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise EngineError("The body must be a JSON object.", code="invalid_body")
    for name, value in body.items():
        if name in known or name in WITHOUT_EFFECT or value is None:
            continue
        if name in REFUSED and value not in ([], "none"):
            raise unsupported(name, REFUSED[name])
        if name not in REFUSED:
            raise EngineError(f"Unknown parameter: {name!r}.", code="unknown_parameter", param=name)
    return body


def _model(fields: Mapping[str, Any]) -> str:
    name = fields.get("model")
    if not isinstance(name, str) or not name:
        raise invalid("model", "model must name one of GET /v1/models.", "missing_required_parameter")
    return name


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise invalid(where, f"{where} must be an object.")
    role = message.get("role")
    if role in ("tool", "function") or message.get("tool_calls"):
        raise unsupported(where, f"{where}: tools are not supported by local models here.")
    if role not in ROLES:
        raise invalid(f"{where}.role", f"{where}.role is {role!r}; it must be one of {', '.join(ROLES)}.")
    # Chat templates know "system"; OpenAI's newer name for it is "developer".
    return {
        "role": "system" if role == "developer" else role,
        "content": _content(message.get("content"), f"{where}.content"),
    }


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(where, f"{where} must be a text or a list of parts.")
    texts = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise unsupported(f"{where}[{at}]", f"Parts of type {kind!r} are not supported; only 'text' is.")
        if not isinstance(part.get("text"), str):
            raise invalid(f"{where}[{at}].text", f"{where}[{at}].text must be a text.")
        texts.append(part["text"])
    return "".join(texts)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(each, str) and each for each in stops):
        raise invalid("stop", "stop must be a text or a list of texts that are not empty.")
    if len(stops) > MAX_STOPS:
        raise invalid("stop", f"stop has {len(stops)} texts; at most {MAX_STOPS} are allowed.")
    return tuple(stops)


def _bias(value: Any) -> tuple[tuple[int, float], ...]:
    if value is None:
        return ()
    try:
        bias = tuple((int(token), float(amount)) for token, amount in value.items())
    except (AttributeError, TypeError, ValueError):
        raise invalid("logit_bias", "logit_bias must map tokens to numbers.") from None
    if any(not -100 <= amount <= 100 for _, amount in bias):
        raise invalid("logit_bias", "Each logit_bias must lie between -100 and 100.")
    return bias


def _preference(value: Any) -> Mapping[str, float] | None:
    preference = value.get("preference") if isinstance(value, dict) else None
    if preference is None:
        return None
    if not isinstance(preference, dict) or not preference or not all(_is_number(each) for each in preference.values()):
        raise invalid("orbweaver.preference", "orbweaver.preference must map names of experts to numbers.")
    return {str(name): float(weight) for name, weight in preference.items()}


def _boolean(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(name, f"{name} is {value!r}; it must be true or false.")
    return bool(value)


def _integer(fields: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise invalid(name, f"{name} is {value!r}; it must be an integer between {least} and {most}.")
    return value


def _number(fields: Mapping[str, Any], name: str, least: float, most: float, default: float) -> float:
    value = fields.get(name)
    if value is None:
        return default
    if not _is_number(value) or not least <= value <= most:
        raise invalid(name, f"{name} is {value!r}; it must be a number between {least:g} and {most:g}.")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_tokens(value: list[Any]) -> bool:
    return all(isinstance(each, int) and not isinstance(each, bool) for each in value)
