"""Capability probes beside the tasks: what an endpoint can do, how long a prompt may be, how fast it is.

A probe says yes, no or unknown. No is said only where the endpoint answers plain questions: an endpoint that refuses
everything has not shown that it lacks an ability.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aptitude_tests.caller import Caller
from aptitude_tests.generators import GENERATORS
from aptitude_tests.item import Item
from aptitude_tests.render import render
from aptitude_tests.scorers import score
from aptitude_tests.source import AskFailure, Completion, Question

#: The day after Monday: asked in the language, to be answered in it.
_DAYS = {
    "en": ("Which day comes after Monday? Answer with one word.", "tuesday"),
    "zh": ("星期一的后一天是星期几？只回答那一天。", "二"),
    "es": ("¿Qué día viene después del lunes? Responde con una palabra.", "martes"),
    "de": ("Welcher Tag kommt nach Montag? Antworte mit einem Wort.", "dienstag"),
    "fr": ("Quel jour vient après lundi ? Réponds par un seul mot.", "mardi"),
    "ar": ("ما اليوم الذي يلي يوم الاثنين؟ أجب بكلمة واحدة.", "ثلاثاء"),
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}
_LIMIT_IN_WORDS = re.compile(r"(?:maximum|max|limit|window|up to|exceeds?)\D{0,60}?(\d{3,8})\b", re.IGNORECASE)
_FILLER = "The river runs past the old mill and the quiet garden. "
_TOKENS_PER_FILLER = 12
_LONGEST_TRIED = 8_000
_SHORTEST_TRIED = 1_000


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found: able or not, None where it could not be told; `detail` in a few words."""

    able: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Probes:
    """All findings. Times in seconds, lengths in tokens; None where not measured.

    Attributes:
        context_accepted: the longest prompt that was tried and taken; `context_limit`: what the endpoint says is most.
        languages: those in which the question was understood and answered.
    """

    abilities: Mapping[str, Finding]
    context_accepted: int | None = None
    context_limit: int | None = None
    languages: tuple[str, ...] = ()
    first_token_s: float | None = None
    tokens_per_s: float | None = None

    def as_record(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


async def probe(caller: Caller, *, context_window: int | None = None) -> Probes:
    """Probe an endpoint with about a dozen short calls.

    Args:
        context_window: as declared, in tokens; nothing longer than it or 8,000 is tried.
    Raises:
        FlowStopped: the endpoint cannot be used at all (wrong key, wrong model, nobody there).
    """
    try:
        await caller.ask(_ask("Reply with one word: ready", 16))
    except AskFailure as failure:
        # A recorded or narrow endpoint may answer its own questions only.
        unknown = Finding(None, f"the endpoint does not take plain questions: {failure.message}")
        return Probes({name: unknown for name in ("streaming", "tools", "json_schema", "vision")})
    others = asyncio.gather(_tools(caller), _json_schema(caller), _vision(caller))
    streamed, context, languages, (tools, json_schema, vision) = await asyncio.gather(
        _streaming(caller), _context(caller, context_window), _languages(caller), others
    )
    finding, first_token_s, tokens_per_s = streamed
    return Probes(
        {"streaming": finding, "tools": tools, "json_schema": json_schema, "vision": vision},
        *context,
        languages=languages,
        first_token_s=first_token_s,
        tokens_per_s=tokens_per_s,
    )


def _ask(content: Any, max_tokens: int, *, stream: bool = False, **fields: Any) -> Question:
    return Question({"messages": [{"role": "user", "content": content}], **fields}, max_tokens, stream)


async def _streaming(caller: Caller) -> tuple[Finding, float | None, float | None]:
    question = _ask("Write the numbers from one to forty as words, separated by commas.", 220, stream=True)
    try:
        found = await caller.ask(question)
    except AskFailure as failure:
        return _verdict(failure), None, None
    completion = found[0]
    if completion.first_token_s is None:
        return Finding(False, "no piece of text came"), None, None
    tokens = completion.completion_tokens or len(completion.text) // 4
    writing_s = completion.duration_s - completion.first_token_s
    speed = tokens / writing_s if writing_s > 0.05 and tokens > 20 else None
    return Finding(True), completion.first_token_s, speed


async def _tools(caller: Caller) -> Finding:
    question = _ask("What is the weather in Oslo now? Use the tool.", 256, tools=[_TOOL])
    completion = await _completion(caller, question)
    if isinstance(completion, Finding):
        return completion
    for call in completion.tool_calls:
        if call.name == "get_weather" and "oslo" in call.arguments.lower():
            return Finding(True)
    return Finding(False, "it answered in words instead of calling the tool")


async def _json_schema(caller: Caller) -> Finding:
    form = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": _SCHEMA}}
    completion = await _completion(caller, _ask("Give a large city of Japan.", 256, response_format=form))
    if isinstance(completion, Finding):
        return completion
    try:
        value = json.loads(completion.text)
    except ValueError:
        return Finding(False, "its answer was not JSON alone")
    fits = isinstance(value, dict) and set(value) == {"city", "inhabitants"} and isinstance(value["inhabitants"], int)
    return Finding(True) if fits else Finding(False, "its JSON did not follow the schema")


async def _vision(caller: Caller) -> Finding:
    draft = GENERATORS.get("picture_text").make(random.Random(20261121), "easy", "en", {})
    item = Item("probe", "probe", 0, draft.question, draft.gold, "text", images=draft.images)
    completion = await _completion(caller, Question(render(item).as_fields(), 256))
    if isinstance(completion, Finding):
        return completion
    return Finding(True) if score(item, completion.reply).score == 1.0 else Finding(False, "it did not read the image")


async def _languages(caller: Caller) -> tuple[str, ...]:
    async def one(language: str) -> bool:
        text, wanted = _DAYS[language]
        completion = await _completion(caller, _ask(text, 64))
        return isinstance(completion, Completion) and wanted in completion.text.lower()

    spoken = await asyncio.gather(*(one(language) for language in _DAYS))
    return tuple(language for language, well in zip(_DAYS, spoken, strict=True) if well)


async def _context(caller: Caller, declared: int | None) -> tuple[int | None, int | None]:
    """The longest prompt that was taken, and the endpoint's own limit where it names one."""
    length = min(_LONGEST_TRIED, int(declared * 0.9) if declared else _LONGEST_TRIED)
    limit: int | None = None
    while length >= _SHORTEST_TRIED:
        text = _FILLER * (length // _TOKENS_PER_FILLER) + "\nReply with one word: ready"
        try:
            completion, _ = await caller.ask(_ask(text, 8))
        except AskFailure as failure:
            if failure.kind != "refused":
                return None, limit
            named = _LIMIT_IN_WORDS.search(failure.message.replace(",", ""))
            limit = limit or (int(named.group(1)) if named else None)
            length //= 2
            continue
        return completion.prompt_tokens or length, limit
    return None, limit


async def _completion(caller: Caller, question: Question) -> Completion | Finding:
    try:
        return (await caller.ask(question))[0]
    except AskFailure as failure:
        return _verdict(failure)


def _verdict(failure: AskFailure) -> Finding:
    """A refusal means that it cannot; anything else tells nothing."""
    return Finding(False if failure.kind == "refused" else None, failure.message)
