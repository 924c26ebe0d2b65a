"""Overlays: a merge's own tensors over a base's memory, in a whole model."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from merge_backends.errors import IncompatibleError  # noqa: E402
from merge_backends.overlay import assemble, overlay  # noqa: E402
from tests.support.checkpoints import LLAMA, llama_weights, tuned  # noqa: E402


@pytest.fixture
def base():
    config = {key: value for key, value in LLAMA.items() if key not in ("architectures", "model_type", "dtype")}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    model.load_state_dict(llama_weights(0), strict=False)
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, 5, 7, 9]])).logits


def test_an_assembled_model_is_the_merged_model_bit_by_bit(base):
    merged = tuned(llama_weights(0), 1)
    expected = torch.func.functional_call(base, merged, kwargs={"input_ids": torch.tensor([[1, 5, 7, 9]])}).logits
    assert torch.equal(logits(assemble(base, merged)), expected.detach())


def test_what_did_not_change_is_the_bases_own_memory(base):
    name = "model.layers.0.mlp.up_proj.weight"
    made = assemble(base, {name: torch.zeros(32, 16)})
    before, after = dict(base.named_parameters()), dict(made.named_parameters())
    assert [key for key in before if before[key] is not after[key]] == [name]
    assert before[name].abs().sum() > 0


def test_tied_weights_stay_tied(base):
    made = assemble(base, {"model.embed_tokens.weight": torch.ones(32, 16)})
    assert made.lm_head.weight is made.model.embed_tokens.weight
    assert base.lm_head.weight is base.model.embed_tokens.weight


def test_buffers_that_no_state_dict_holds_are_there(base):
    made = assemble(base, {})
    assert torch.equal(made.model.rotary_emb.inv_freq, base.model.rotary_emb.inv_freq)
    assert torch.equal(logits(made), logits(base))


def test_only_what_changed_is_kept():
    weights = llama_weights(0)
    merged = {**weights, "model.norm.weight": weights["model.norm.weight"] + 1}
    found = overlay(weights, merged.items())
    assert list(found.changed) == ["model.norm.weight"]
    assert found.nbytes == 16 * 4
    assert torch.equal(found["model.norm.weight"], merged["model.norm.weight"])


@pytest.mark.parametrize("changed", [{"nothing": torch.zeros(1)}, {"model.norm.weight": torch.zeros(3)}])
def test_tensors_of_another_model_are_refused(base, changed):
    with pytest.raises(IncompatibleError):
        assemble(base, changed)
