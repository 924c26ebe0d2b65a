"""One causal language model as the engine runs it: forward over slots, vocabulary, chat template, limits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.engine.errors import EngineError, invalid
from merge_backends.engine.slots import LayerShape, SlotCache, round_up
from merge_backends.engine.text import Vocabulary
from merge_backends.errors import CheckpointError

#: Models without a chat template get plain roles; the next user turn ends an answer.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
DEFAULT_STOPS = ("\nUser:", "\nSystem:")
KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
#: Largest difference of logits, relative to their scale, at which slots and a plain forward agree (float32: 1e-5).
AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-6}
ROUGH_AGREEMENT = 0.1


@dataclass(slots=True, eq=False)
class CausalModel:
    """A loaded model. `context` in tokens, prompt and answer together; `fingerprint` changes with the weights."""

    name: str
    module: nn.Module
    vocabulary: Vocabulary
    context: int
    ends: frozenset[int]
    shapes: list[LayerShape]
    gated: bool
    fingerprint: str
    template: str | None

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def group(self) -> str:
        """Models of one shape share a worker thread."""
        config: Any = self.module.config
        return f"{config.model_type}-{self.shapes}-{config.vocab_size}"

    @property
    def nbytes(self) -> int:
        """Bytes of weights and buffers, tied ones once."""
        seen = {each.data_ptr(): each for each in (*self.module.parameters(), *self.module.buffers())}
        return sum(each.numel() * each.element_size() for each in seen.values())

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings of the template itself."""
        return DEFAULT_STOPS if self.template is None else ()

    def new_cache(self) -> SlotCache:
        """An empty KV cache of the model's shape."""
        return SlotCache(self.shapes, self.dtype, self.device)

    def render(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Tokens of a conversation, up to where the answer begins.

        Raises:
            EngineError: the model's template refuses these messages.
        """
        from jinja2 import TemplateError

        template = DEFAULT_TEMPLATE if self.template is None else self.template
        try:
            text = self.vocabulary.tokenizer.apply_chat_template(
                list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise invalid("messages", f"The chat template of {self.name} refuses these messages: {error}") from None
        return self.vocabulary.encode(text, special=self.template is None)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: SlotCache, keep: Tensor) -> Tensor:
        """Logits `(B, len(keep), V)` after the kept columns of `tokens` `(B, T)`; the cache's window must be open.

        `mask` is `(B, 1, T, L)`, True where a token attends.
        """
        logits: Tensor = self.module(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """No gradients, for the whole life of a worker thread."""
    with torch.inference_mode():
        yield


def prefill_mask(rows: int, begin: int, end: int, device: torch.device) -> Tensor:
    """`(rows, 1, end - begin, end)`: each token sees those before it and itself."""
    causal = torch.ones((end - begin, end), dtype=torch.bool, device=device).tril(begin)
    return causal.expand(rows, 1, -1, -1)


def decode_mask(positions: Tensor, end: int) -> Tensor:
    """`(B, 1, 1, end)` for one new token of each row at `positions` `(B)`."""
    columns = torch.arange(end, device=positions.device)
    return (columns <= positions.unsqueeze(1))[:, None, None]


def context_of(config: Any) -> int:
    """Tokens that the model was made for; a sliding window bounds it, since slots keep every token.

    Raises:
        CheckpointError: layers without plain attention, or no limit in the config.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - KNOWN_LAYERS:
        raise CheckpointError(
            f"Layers of kind {', '.join(sorted(kinds - KNOWN_LAYERS))} cannot be served.",
            "The engine serves models with plain attention: Llama-, Qwen2- and GPT-2-like ones.",
        )
    lengths = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    context = next((int(each) for each in lengths if each), 0)
    if not context:
        raise CheckpointError("The config states no context length.", "Give `context_window` for the model.")
    window = getattr(config, "sliding_window", None)
    uses_window = "sliding_attention" in kinds or (window and not kinds and getattr(config, "use_sliding_window", True))
    return min(context, int(window)) if window and uses_window else context


def learn_shapes(module: nn.Module) -> list[LayerShape]:
    """Shapes of the KV cache, seen in one short forward pass."""
    from transformers import DynamicCache

    device = next(module.parameters()).device
    cache = DynamicCache()
    with torch.inference_mode():
        module(input_ids=torch.zeros((1, 2), dtype=torch.long, device=device), past_key_values=cache, use_cache=True)
    shapes = []
    for layer in cache.layers:
        if layer.keys is None:
            raise CheckpointError("A layer of the model keeps no keys.", "Such models cannot be served.")
        keys, values = layer.keys.shape, layer.values.shape
        shapes.append(LayerShape((keys[1], keys[3]), (values[1], values[3])))
    return shapes


def check_slots(model: CausalModel) -> None:
    """Compare two rows over slots (filled, then one token at a time) with plain forward passes.

    Raises:
        CheckpointError: they differ, so the architecture does something that slots do not do.
    """
    from merge_backends.moe.gates import gating

    device, vocabulary = model.device, len(model.vocabulary)
    length, filled = min(8, model.context), min(5, model.context - 1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocabulary, (2, length), generator=generator).to(device)
    positions = torch.arange(length, device=device).expand(2, -1)
    cache = model.new_cache()
    cache.reserve(2, length)
    with torch.inference_mode():
        with gating() as gates:
            model.module(input_ids=tokens[:, :filled], use_cache=False)
        with gating(gates):
            plain = model.module(input_ids=tokens, use_cache=False).logits.float()
        found = []
        with gating(gates):
            cache.open_prefill(slice(0, 2), 0, filled)
            mask = prefill_mask(2, 0, filled, device)
            keep = torch.arange(filled, device=device)
            found.append(model.forward(tokens[:, :filled], positions[:, :filled], mask, cache, keep))
            for at in range(filled, length):
                end = min(round_up(at + 1), cache.length)
                cache.open_decode(torch.arange(2, device=device), positions[:, at], end)
                now = slice(at, at + 1)
                mask = decode_mask(positions[:, at], end)
                keep = torch.zeros(1, dtype=torch.long, device=device)
                found.append(model.forward(tokens[:, now], positions[:, now], mask, cache, keep))
    difference = float((torch.cat(found, dim=1).float() - plain).abs().max())
    allowed = AGREEMENT.get(model.dtype, ROUGH_AGREEMENT) * max(1.0, float(plain.abs().max()))
    if not difference <= allowed:
        raise CheckpointError(
            f"The engine's KV cache does not give the answers of {type(model.module).__name__} "
            f"(logits differ by {difference:.3g}).",
            "Serve this architecture with another server.",
        )


def check_prompt(model: CausalModel, tokens: Sequence[int], param: str) -> None:
    """Tokens given by number must be in the vocabulary.

    Raises:
        EngineError: one is not.
    """
    size = len(model.vocabulary)
    wrong = next((token for token in tokens if not 0 <= token < size), None)
    if wrong is not None:
        raise EngineError(f"The token {wrong} is not in the vocabulary of {size}.", code="invalid_value", param=param)
