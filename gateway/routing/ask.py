"""Finds the newest human ask in a conversation: behind tool results, agent reminders and harness noise.

Agents put machine text into user turns; a router that reads it routes on noise (specs: "Route on what text").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_ASK_CHARS = 200_000

# Blocks that agent harnesses wrap around or into user turns. Everything between the tags is machine text.
MACHINE_TAGS = (
    "system-reminder",
    "environment_context",
    "environment_details",
    "tool_result",
    "tool_results",
    "function_results",
    "command-name",
    "command-message",
    "command-args",
    "local-command-stdout",
    "local-command-stderr",
    "local-command-caveat",
    "user-prompt-submit-hook",
    "additional_data",
    "attached_files",
    "open_and_recently_viewed_files",
    "user_info",
    "context_window",
)
# Lines with which a whole user turn is a tool's answer rather than a person's words.
MACHINE_STARTS = (
    "observation:",
    "tool result:",
    "tool output:",
    "[tool result]",
    "[request interrupted",
    "this session is being continued from a previous conversation",
    "caveat: the messages below were generated",
)


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or its text parts joined by newlines."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(_part_texts(content))


def _part_texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict) and part.get("type") in ("text", "input_text", "output_text", None):
            text = part.get("text")
            if isinstance(text, str):
                yield text


def strip_machine_text(text: str) -> str:
    """Remove the blocks of `MACHINE_TAGS`. Linear in the text; an unclosed block runs to the end."""
    if "<" not in text:
        return text.strip()
    for tag in MACHINE_TAGS:
        opening, closing = f"<{tag}", f"</{tag}>"
        start = text.find(opening)
        if start < 0:
            continue
        kept, position = [], 0
        while start >= 0:
            after = text[start + len(opening) : start + len(opening) + 1]
            if after not in (">", " ", "\n", "/"):
                start = text.find(opening, start + len(opening))
                continue
            kept.append(text[position:start])
            end = text.find(closing, start)
            position = len(text) if end < 0 else end + len(closing)
            start = text.find(opening, position)
        kept.append(text[position:])
        text = "".join(kept)
    return text.strip()


def human_text(content: Any) -> str:
    """What a person wrote in a user turn; empty where the turn holds machine text only."""
    text = text_of(content)
    # Asks stand at the ends of long turns (pasted context in between): keep both, never cut the end.
    if len(text) > MAX_ASK_CHARS:
        text = text[: MAX_ASK_CHARS // 2] + "\n" + text[-MAX_ASK_CHARS // 2 :]
    text = strip_machine_text(text)
    return "" if text[:80].lower().startswith(MACHINE_STARTS) else text


def newest_ask(messages: list[Any]) -> str:
    """The newest user turn with human text; the newest text of any other role where there is none."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            text = human_text(message.get("content"))
            if text:
                return text
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") in ("system", "developer", None):
            text = strip_machine_text(text_of(message.get("content"))[:MAX_ASK_CHARS])
            if text:
                return text
    return ""
