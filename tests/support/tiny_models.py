"""Random two-layer transformers of each shape, with a base and experts near it. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers
from torch import Tensor, nn

VOCABULARY = 61
SHAPES = ("bert", "gpt2", "llama", "qwen2")


def tiny_model(shape: str, *, seed: int = 0, layers: int = 2) -> nn.Module:
    """A model in evaluation mode; encoders without a head, decoders with one."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "bert": lambda: transformers.BertModel(
            transformers.BertConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                num_hidden_layers=layers,
                num_attention_heads=4,
                intermediate_size=48,
                max_position_embeddings=64,
            )
        ),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=32,
                n_layer=layers,
                n_head=4,
                n_positions=64,
                bos_token_id=0,
                eos_token_id=None,
                pad_token_id=0,
            )
        ),
        "llama": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=layers,
                num_attention_heads=4,
                tie_word_embeddings=True,
                bos_token_id=0,
                eos_token_id=None,
                pad_token_id=0,
            )
        ),
        "qwen2": lambda: transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                bos_token_id=0,
                eos_token_id=None,
                pad_token_id=0,
            )
        ),
    }
    torch.manual_seed(seed)
    return makers[shape]().eval()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's tensors."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def near(
    base: dict[str, Tensor], *, seed: int, scale: float = 0.05, only: Callable[[str], bool] = bool
) -> dict[str, Tensor]:
    """An expert: the base plus noise in every floating tensor that `only` names. Tied tensors stay tied."""
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: tensor + scale * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and only(name)
        else tensor.clone()
        for name, tensor in base.items()
    }
    for head, embedding in (
        ("lm_head.weight", "model.embed_tokens.weight"),
        ("lm_head.weight", "transformer.wte.weight"),
    ):
        if head in base and embedding in base and torch.equal(base[head], base[embedding]):
            moved[head] = moved[embedding]
    return moved


def family(
    shape: str, *, experts: int = 3, scale: float = 0.05, only: Callable[[str], bool] = bool
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """A base and its experts."""
    base = weights_of(tiny_model(shape, seed=1))
    return base, [near(base, seed=10 + index, scale=scale, only=only) for index in range(experts)]


def dense(shape: str, weights: dict[str, Tensor]) -> nn.Module:
    """A plain model with these weights."""
    model = tiny_model(shape, seed=2)
    model.load_state_dict(weights)
    return model


def task_arithmetic(base: dict[str, Tensor], experts: list[dict[str, Tensor]], weight: float) -> dict[str, Tensor]:
    """Base plus the weighted sum of the differences."""
    return {
        name: tensor + weight * sum(expert[name] - tensor for expert in experts)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in base.items()
    }


def inputs(*, batch: int = 3, length: int = 7, padding: int = 0, seed: int = 5) -> dict[str, Tensor]:
    """Tokens and their mask; the last `padding` positions of every second row are padding."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, VOCABULARY, (batch, length), generator=generator)
    mask = torch.ones_like(tokens)
    if padding:
        mask[1::2, -padding:] = 0
    return {"input_ids": tokens, "attention_mask": mask}


def run(model: nn.Module, given: dict[str, Tensor]) -> Tensor:
    """Logits, or the last hidden state of a model without a head."""
    with torch.no_grad():
        output = model(**given)
    result: Tensor = output.logits if "logits" in output else output.last_hidden_state
    return result
