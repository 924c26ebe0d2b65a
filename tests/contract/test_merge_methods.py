"""What every merge method promises, over the whole registry; the numbers of the static ones by hand and by paper."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from merge_backends import methods  # noqa: E402
from merge_backends.errors import IncompatibleError, RecipeError, UnknownNameError  # noqa: E402

SHAPES = {"embed": (7, 4), "layer.0.weight": (4, 4), "layer.0.bias": (4,), "scale": ()}
STATIC = ["linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", "passthrough"]
TASK_VECTOR = ["task_arithmetic", "ties", "dare_linear", "dare_ties"]
SETTINGS = {
    "slerp": {"t": 0.4},
    "ties": {"density": 0.5},
    "dare_linear": {"density": 0.5},
    "dare_ties": {"density": 0.5},
}


def weights(seed, dtype=torch.float32, size=1.0):
    """One small model."""
    generator = torch.Generator().manual_seed(seed)
    return {name: (torch.randn(shape, generator=generator) * size).to(dtype) for name, shape in SHAPES.items()}


def near(base, seed, size=0.1):
    """A fine-tuned copy of `base`."""
    change = weights(seed, size=size)
    return {name: (tensor.float() + change[name]).to(tensor.dtype) for name, tensor in base.items()}


def count(name):
    """How many experts a method takes at most."""
    return 1 if name in ("slerp", "passthrough") else 3


def merge(name, base, experts, seed=0, **given):
    """The merged model as a dict; `given` are the parameters."""
    method = methods.entry(name)
    parameters = methods.parse_parameters(method.parameters, given, owner=name)
    ancestor = base if method.needs_base or name == "slerp" else None
    return dict(method.merge(ancestor, experts, parameters, seed=seed))


def assert_same(first, second, tolerance=0.0):
    """Bitwise where no tolerance is given."""
    assert list(first) == list(second)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=tolerance, equal_nan=False, msg=name)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_names_itself_its_paper_and_its_parameters(name):
    method = methods.entry(name)
    assert method.name == name
    assert method.summary
    assert method.paper
    assert method.parameters.model_config["extra"] == "forbid"


@pytest.mark.parametrize("name", methods.names())
def test_an_unknown_parameter_is_refused_with_the_near_name(name):
    method = methods.entry(name)
    known = next(iter(method.parameters.model_fields))
    with pytest.raises(UnknownNameError) as refused:
        methods.parse_parameters(method.parameters, {known + "x": 1}, owner=name)
    assert known in refused.value.fix


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_copies_of_one_model_give_that_model(name, dtype):
    base = weights(0, dtype)
    merged = merge(name, base, [base] * count(name), **SETTINGS.get(name, {}))
    # a third is not exact in binary: one unit in the last place
    assert_same(merged, base, tolerance=3e-7 if dtype == torch.float32 else 0.0)
    assert all(tensor.dtype == dtype for tensor in merged.values())


@pytest.mark.parametrize("name", TASK_VECTOR)
def test_lambda_zero_is_the_base_bit_by_bit(name):
    base = weights(0)
    experts = [near(base, 1), near(base, 2)]
    assert_same(merge(name, base, experts, **{"lambda": 0.0}), base)


@pytest.mark.parametrize("name", [*TASK_VECTOR, "linear", "passthrough"])
def test_one_expert_of_weight_one_is_that_expert(name):
    base = weights(0)
    expert = near(base, 1)
    # base + (expert - base) rounds once: half a unit in the last place of values below 4
    assert_same(merge(name, base, [expert]), expert, tolerance=0.0 if name == "task_arithmetic" else 3e-7)


@pytest.mark.parametrize("name", [*TASK_VECTOR, "linear"])
def test_the_order_of_the_experts_does_not_matter(name):
    base = weights(0)
    experts = [near(base, 1), near(base, 2), near(base, 3)]
    there = merge(name, base, experts, weight=[0.5, 0.3, 0.2], **SETTINGS.get(name, {}))
    back = merge(name, base, experts[::-1], weight=[0.2, 0.3, 0.5], **SETTINGS.get(name, {}))
    assert_same(there, back, tolerance=5e-7)


@pytest.mark.parametrize("name", STATIC)
def test_inputs_are_not_changed(name):
    base, expert = weights(0), weights(1)
    before = {key: tensor.clone() for key, tensor in expert.items()}
    merge(name, base, [expert], **SETTINGS.get(name, {}))
    assert_same(expert, before)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_a_seed_gives_the_same_bits_whatever_was_merged_before(name):
    base = weights(0)
    experts = [near(base, 1), near(base, 2)]
    one = {key: base[key] for key in ["layer.0.weight"]}
    alone = merge(name, one, [{key: expert[key] for key in one} for expert in experts], seed=3, density=0.5)
    whole = merge(name, base, experts, seed=3, density=0.5)
    torch.testing.assert_close(alone["layer.0.weight"], whole["layer.0.weight"], rtol=0, atol=0)
    assert not torch.equal(whole["embed"], merge(name, base, experts, seed=4, density=0.5)["embed"])


@pytest.mark.parametrize("name", STATIC)
def test_tensors_come_one_by_one(name):
    class Watched(dict):
        reads = 0

        def __getitem__(self, key):
            Watched.reads += 1
            return super().__getitem__(key)

    method = methods.entry(name)
    parameters = methods.parse_parameters(method.parameters, SETTINGS.get(name, {}), owner=name)
    base, expert = weights(0), Watched(near(weights(0), 1))
    next(iter(method.merge(base if method.needs_base or name == "slerp" else None, [expert], parameters, seed=0)))
    assert Watched.reads == 1


@pytest.mark.parametrize("name", STATIC)
def test_other_shapes_are_refused(name):
    base = weights(0)
    other = {**weights(1), "embed": torch.zeros(8, 4)}
    experts = [other] if count(name) == 1 else [weights(1), other]
    with pytest.raises(IncompatibleError, match="embed") if name != "passthrough" else pytest.raises(RecipeError):
        merge(name, base, experts if name != "passthrough" else [*experts, base], **SETTINGS.get(name, {}))


@pytest.mark.parametrize("name", ["linear", *TASK_VECTOR])
def test_whole_numbers_must_agree(name):
    base = {"ids": torch.arange(3)}
    assert torch.equal(merge(name, base, [base])["ids"], base["ids"])
    with pytest.raises(IncompatibleError, match="ids"):
        merge(name, base, [{"ids": torch.arange(3)}, {"ids": torch.arange(3) + 1}])


@pytest.mark.parametrize("name", [*TASK_VECTOR])
def test_a_method_on_task_vectors_needs_a_base(name):
    method = methods.entry(name)
    with pytest.raises(RecipeError, match="base"):
        next(iter(method.merge(None, [weights(0)], method.parameters())))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("slerp", {"t": 1.5}),
        ("slerp", {}),
        ("ties", {"density": 1.2}),
        ("ties", {"trim_scope": "layer"}),
        ("linear", {"weight": math.nan}),
        ("dare_ties", {"density": -0.1}),
    ],
)
def test_values_out_of_range_are_refused(name, given):
    with pytest.raises(RecipeError, match=name):
        merge(name, weights(0), [weights(1)], **given)


# Hand-computed numbers. One tensor: base (1, 1, 1, 1).
BASE = {"w": torch.ones(4)}
FIRST = {"w": torch.tensor([5.0, 2.0, 0.0, 1.5])}  # changes 4, 1, -1, .5
SECOND = {"w": torch.tensor([-1.0, 4.0, -2.0, 1.0])}  # changes -2, 3, -3, 0


def hand(name, **given):
    return merge(name, BASE, [FIRST, SECOND], **given)["w"].tolist()


def test_linear_by_hand():
    assert hand("linear", weight=[3, 1]) == pytest.approx([3.5, 2.5, -0.5, 1.375])
    assert hand("linear", weight=[2, 1], normalize=False) == pytest.approx([9.0, 8.0, -2.0, 4.0])


def test_task_arithmetic_by_hand():
    assert hand("task_arithmetic", **{"lambda": 0.5}) == pytest.approx([2.0, 3.0, -1.0, 1.25])


def test_ties_by_hand():
    # density .5 keeps (4, 1 and -1 tie at the threshold, both stay) and (3, -3): signs +, +, -, any
    assert hand("ties", density=0.5, normalize=False) == pytest.approx([5.0, 5.0, -3.0, 1.0])
    assert hand("ties", density=0.5) == pytest.approx([5.0, 3.0, -1.0, 1.0])


def test_slerp_by_hand():
    base, other = {"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 2.0])}
    merged = merge("slerp", base, [other], t=0.5)["w"].tolist()
    assert merged == pytest.approx([math.sqrt(0.5), 2 * math.sqrt(0.5)])
    assert_same(merge("slerp", base, [other], t=0.0), base)
    torch.testing.assert_close(merge("slerp", base, [other], t=1.0)["w"], other["w"], rtol=0, atol=2e-7)


def test_passthrough_scales():
    assert merge("passthrough", BASE, [FIRST], scale=0.5)["w"].tolist() == [2.5, 1.0, 0.0, 0.75]


def slow_ties(base, experts, density, scale):
    """TIES-Merging, algorithm 1, over the flattened model, entry by entry (lambda times the disjoint mean)."""
    names = list(base)
    flat = torch.cat([base[name].reshape(-1) for name in names]).tolist()
    changes = []
    for expert in experts:
        own = torch.cat([(expert[name] - base[name]).reshape(-1) for name in names]).tolist()
        kept = sorted(range(len(own)), key=lambda place: -abs(own[place]))[: int(density * len(own))]
        changes.append([value if place in set(kept) else 0.0 for place, value in enumerate(own)])
    merged = []
    for place, start in enumerate(flat):
        column = [change[place] for change in changes]
        sign = 1.0 if sum(column) >= 0 else -1.0
        agreeing = [value for value in column if value * sign > 0]
        merged.append(start + scale * (sum(agreeing) / len(agreeing) if agreeing else 0.0))
    return merged


def test_ties_over_the_whole_model_is_the_papers_algorithm():
    base = weights(0)
    experts = [near(base, 1, 0.1), near(base, 2, 0.3), near(base, 3, 0.2)]
    merged = merge("ties", base, experts, density=0.2, trim_scope="global", **{"lambda": 0.7})
    flat = torch.cat([tensor.reshape(-1) for tensor in merged.values()]).tolist()
    assert flat == pytest.approx(slow_ties(base, experts, 0.2, 0.7), abs=1e-6)


def test_the_trim_over_the_model_differs_from_the_trim_per_tensor():
    base = weights(0)
    expert = near(base, 1)
    expert["embed"] = base["embed"] + (expert["embed"] - base["embed"]) * 100
    merged = merge("ties", base, [expert], density=0.3, trim_scope="global")
    assert torch.equal(merged["layer.0.bias"], base["layer.0.bias"])


def test_dare_is_unbiased_and_keeps_the_asked_share():
    base = {"w": torch.zeros(40_000)}
    expert = {"w": torch.ones(40_000)}
    merged = merge("dare_linear", base, [expert], density=0.1)["w"]
    # standard errors: share .0015, mean .015; four of them
    assert float((merged != 0).float().mean()) == pytest.approx(0.1, abs=0.006)
    assert float(merged.mean()) == pytest.approx(1.0, abs=0.06)
    assert set(merged.tolist()) == {0.0, 10.0}


def test_dare_can_keep_the_norm_as_mergekit_does():
    base = {"w": torch.zeros(1000)}
    expert = {"w": torch.randn(1000, generator=torch.Generator().manual_seed(1))}
    merged = merge("dare_linear", base, [expert], density=0.3, rescale_norm="l1")["w"]
    assert float(merged.abs().sum()) == pytest.approx(float(expert["w"].abs().sum()), rel=1e-5)


def test_copies_of_an_expert_are_dropped_independently():
    base, expert = {"w": torch.zeros(1000)}, {"w": torch.ones(1000)}
    merged = merge("dare_linear", base, [expert, expert], density=0.5)["w"]
    assert set(merged.tolist()) == {0.0, 2.0, 4.0}


def test_an_unknown_method_is_refused_with_the_near_name():
    with pytest.raises(UnknownNameError, match="task_arithmetic") as refused:
        methods.entry("task_aritmetic")
    assert isinstance(refused.value, LookupError)


@pytest.mark.parametrize("keep", [0, 1, 3, 999, 1000, 2000])
def test_the_threshold_is_the_exact_order_statistic(keep):
    from merge_backends.methods.tensor_math import magnitude_threshold

    values = torch.randn(1000, generator=torch.Generator().manual_seed(5))
    ordered = values.abs().sort(descending=True).values.tolist()
    expected = math.inf if keep == 0 else ordered[keep - 1] if keep <= 1000 else 0.0
    assert magnitude_threshold(lambda: values.split(300), keep) == expected
