"""From an item to the request a model gets: question, options, a one-line format instruction in the item's language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aptitude_tests.generators.registry import texts
from aptitude_tests.item import LETTERS, Item

#: Answers are stored by (model, item hash, template version): count up with every change of what is sent.
TEMPLATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent for one item: OpenAI chat messages, and tools where the item offers some."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    def as_fields(self) -> dict[str, Any]:
        """Fields of a chat completion request."""
        fields: dict[str, Any] = {"messages": list(self.messages)}
        return fields | ({"tools": list(self.tools)} if self.tools else {})


def render_text(item: Item) -> str:
    """The whole text of an item, as it is sent and as the encoder embeds it."""
    parts = [item.question]
    if item.options:
        parts.append("\n".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(item.options)))
    instruction = item.instruction
    if instruction is None:
        instruction = texts("instructions", item.language).get(item.scorer, "")
    return "\n\n".join([*parts, instruction] if instruction else parts)


def render(item: Item) -> Prompt:
    """The request for an item: one user message, images after the text."""
    text = render_text(item)
    content: Any = text
    if item.images:
        content = [{"type": "text", "text": text}]
        content += [{"type": "image_url", "image_url": {"url": picture.data_url}} for picture in item.images]
    return Prompt(({"role": "user", "content": content},), item.tools)
