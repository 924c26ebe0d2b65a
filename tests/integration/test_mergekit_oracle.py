"""mergekit itself as the oracle, where an interpreter that has it is named by ORBWEAVER_MERGEKIT_PYTHON.

Its plain mode merges files tensor by tensor; its YAML mode also reads filters, gradients and slices.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from merge_backends.build import build_all  # noqa: E402
from merge_backends.recipe import parse_recipe  # noqa: E402
from tests.support.checkpoints import LLAMA, llama_weights, save, tuned  # noqa: E402

PYTHON = os.environ.get("ORBWEAVER_MERGEKIT_PYTHON")
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="ORBWEAVER_MERGEKIT_PYTHON names no interpreter with mergekit"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]
PLAIN = "from mergekit.scripts.merge_raw_pytorch import main; main()"
FROM_YAML = "from mergekit.scripts.run_yaml import main; main()"
CONFIG = {**LLAMA, "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "vocab_size": 500}
NAMES = ("base", "one", "two", "three")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oracle")
    base = llama_weights(0, CONFIG)
    for number, name in enumerate(NAMES):
        save(folder / name, tuned(base, number) if number else base, CONFIG, vocabulary=None)
    return folder


def theirs(folder: Path, document, script: str):
    """What mergekit makes of a recipe whose models are names of folders."""
    wanted = "/model.safetensors" if script == PLAIN else ""

    def located(value):
        if isinstance(value, dict):
            return {key: located(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [located(inner) for inner in value]
        return f"{folder / value}{wanted}" if value in NAMES else value

    (folder / "theirs.yaml").write_text(yaml.safe_dump(located(document)))
    out = folder / f"theirs{len(list(folder.iterdir()))}"
    command = [str(PYTHON), "-c", script, str(folder / "theirs.yaml"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return {name: tensor for file in out.glob("*.safetensors") for name, tensor in load_file(str(file)).items()}


def ours(folder: Path, document):
    """What we make of the same recipe."""
    out = folder / f"ours{len(list(folder.iterdir()))}"
    build_all([parse_recipe(document)], out, root=folder)
    return load_file(str(out / "model.safetensors"))


def differences(first, second):
    assert set(first) == set(second)
    return torch.cat([(first[name] - second[name]).abs().reshape(-1) for name in sorted(first)])


def recipe(method, parameters=None, own=({}, {}, {})):
    models = [{"model": name, "parameters": dict(given)} for name, given in zip(NAMES[1:], own, strict=False)]
    return {"merge_method": method, "base_model": "base", "models": models, "parameters": parameters or {}}


WEIGHTS = ({"weight": 0.5}, {"weight": 0.3}, {"weight": 0.4})
DENSE = tuple({**given, "density": density} for given, density in zip(WEIGHTS, (0.2, 0.5, 0.8), strict=True))
EXACT = {
    "linear": {**recipe("linear", own=WEIGHTS), "base_model": None},
    "linear, not normalized": {**recipe("linear", {"normalize": False}, WEIGHTS), "base_model": None},
    "linear with the base": recipe("linear", {"weight": 1.0}),
    "slerp": {**recipe("slerp", {"t": 0.3}), "models": [{"model": "base"}, {"model": "one"}]},
    "task arithmetic": recipe("task_arithmetic", {"lambda": 0.7}, WEIGHTS),
    "task arithmetic, normalized": recipe("task_arithmetic", {"normalize": True}, WEIGHTS),
    "ties without trim": recipe("ties", own=WEIGHTS),
    "ties without trim, sum": recipe("ties", {"normalize": False}, WEIGHTS),
}
TRIMMED = {
    "ties": recipe("ties", {"lambda": 0.9}, DENSE),
    "ties, sum": recipe("ties", {"normalize": False, "lambda": 0.3}, DENSE),
    "ties, rescaled": recipe("ties", {"rescale": True}, DENSE),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_agree_to_one_in_a_hundred_thousand(models, name):
    document = {key: value for key, value in EXACT[name].items() if value is not None}
    found = differences(ours(models, document), theirs(models, document, PLAIN))
    print(f"{name}: largest difference {float(found.max()):.2e}")
    assert float(found.max()) < 1e-5


@pytest.mark.parametrize("name", TRIMMED)
def test_ties_agrees_but_for_values_at_the_threshold(models, name):
    found = differences(ours(models, TRIMMED[name]), theirs(models, TRIMMED[name], PLAIN))
    beyond = int((found > 1e-5).sum())
    print(f"{name}: {beyond} of {found.numel()} values beyond 1e-5, median {float(found.median()):.2e}")
    # at most the one value at the threshold of each tensor and expert, were it cut on the other side
    assert beyond <= 3 * 40


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_agrees_in_distribution(models, method):
    document = recipe(method, {"weight": 0.4, "density": 0.3})
    mine, other = ours(models, document), theirs(models, document, PLAIN)
    base = load_file(str(models / "base" / "model.safetensors"))
    moved = [torch.cat([(made[n] - base[n]).reshape(-1) for n in sorted(base)]) for made in (mine, other)]
    shares = [float((one != 0).float().mean()) for one in moved]
    spreads = [float(one.std()) for one in moved]
    print(f"{method}: share moved {shares}, spread {spreads}")
    # 227,000 values: standard errors below .0011 of the share and .4 % of the spread; four of them
    assert shares[0] == pytest.approx(shares[1], abs=0.005)
    assert spreads[0] == pytest.approx(spreads[1], rel=0.02)


GRADIENT = [{"filter": "mlp", "value": [0.0, 0.5, 1.0]}, {"filter": "self_attn", "value": 0.7}, {"value": 0.1}]
SLICED = [
    {"sources": [{"model": "base", "layer_range": [0, 3]}, {"model": "one", "layer_range": [1, 4]}],
     "parameters": {"t": [0.2, 0.6]}},
    {"sources": [{"model": "base", "layer_range": [2, 4]}, {"model": "two", "layer_range": [0, 2]}]},
]  # fmt: skip
FROM_RECIPES = {
    "filters and gradients": recipe("task_arithmetic", own=({"weight": GRADIENT}, {"weight": [0.0, 1.0]})),
    "slices": {"merge_method": "slerp", "base_model": "base", "slices": SLICED, "parameters": {"t": 0.5}},
    "stack": {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "one", "layer_range": [0, 3]}]},
            {"sources": [{"model": "two", "layer_range": [1, 4], "parameters": {"scale": 0.5}}]},
        ],
    },
}


@pytest.mark.parametrize("name", FROM_RECIPES)
def test_recipes_mean_what_they_mean_in_mergekit(models, name):
    document = {**FROM_RECIPES[name], "dtype": "float32"}
    found = differences(ours(models, document), theirs(models, document, FROM_YAML))
    print(f"{name}: largest difference {float(found.max()):.2e}")
    assert float(found.max()) < 1e-5
