"""Recipes, plans and builds over a small family of models, for tests of what is built and what is refused."""

from __future__ import annotations

from safetensors.torch import load_file

from merge_backends.build import Options, build_all
from merge_backends.checkpoint import Checkpoint
from merge_backends.plan import make_plan
from merge_backends.recipe import parse_recipe

TWO = [{"model": "one"}, {"model": "two"}]


def recipe(method="task_arithmetic", models=TWO, **rest):
    return {"merge_method": method, "base_model": "base", "models": models, **rest}


def plan(folder, document, **given):
    return make_plan(parse_recipe(document), root=folder, **given)


def build(folder, document, out="out", **options):
    documents = document if isinstance(document, list) else [document]
    record = build_all([parse_recipe(one) for one in documents], folder / out, root=folder, options=Options(**options))
    return record, Checkpoint.open(folder / out)


def weights(folder, name):
    return load_file(str(folder / name / "model.safetensors"))
