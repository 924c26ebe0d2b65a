"""From trained weights to the bundled zoo: merge, mixtures, measured answers, manifest and cards.

`python -m merge_backends.zoo.pack`, after `merge_backends.zoo.train` has written its weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from merge_backends.zoo.evaluate import fresh_questions, grade, measure, shares_right
from merge_backends.zoo.expand import HERE, STORED, base_weights, digest, expert_weights, load_model
from merge_backends.zoo.mixtures import (
    MERGED,
    ROUTER_FILE,
    build_smile,
    build_wemoe,
    fit_routers,
    merged_weights,
    save_routers,
)
from merge_backends.zoo.skills import SKILLS
from merge_backends.zoo.tokenizer import build_tokenizer, save_tokenizer
from merge_backends.zoo.train import BASE, EXPERTS, RANK, build_config

logger = logging.getLogger(__name__)

SUITE = "zoo-skills"
CONTEXT_WINDOW = 256  # twice the longest question it was trained on
SCALES = (0.2, 0.3, 0.5, 0.8)
SCALE_SEED, PROFILE_SEED, TEST_SEED, ROUTER_SEED = 3_000_001, 3_000_002, 3_000_003, 3_000_004
PROFILE_QUESTIONS, TEST_QUESTIONS = 40, 80
LICENCE = "Apache-2.0"
COMMANDS = ("python -m merge_backends.zoo.train --seed 1", "python -m merge_backends.zoo.pack")


def main() -> None:
    """Pack what lies in the package's own folder of weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    pack()


def pack() -> None:
    """Write configuration, tokenizer, routers, `profiles.json`, `manifest.json` and the cards."""
    tokenizer = build_tokenizer()
    save_tokenizer(tokenizer, STORED)
    config = build_config(tokenizer.get_vocab_size(), tokenizer)
    config.architectures = ["LlamaForCausalLM"]
    (STORED / "config.json").write_text(config.to_json_string(use_diff=True))
    base = base_weights()
    experts = {skill: expert_weights(skill, base) for skill in SKILLS}
    parts = list(experts.values())
    scale = choose_scale(base, parts)
    wemoe = build_wemoe(load_model(base), base, parts, None)
    fit_routers(wemoe, {skill: load_model(weights) for skill, weights in experts.items()}, tokenizer, seed=ROUTER_SEED)
    save_routers(wemoe, STORED / ROUTER_FILE)
    models: dict[str, nn.Module] = {name: load_model(weights) for name, weights in {"base": base, **experts}.items()}
    models["merge"] = load_model(merged_weights(base, parts, scale))
    models["smile"] = build_smile(load_model(base), base, parts)
    models["wemoe"] = build_wemoe(load_model(base), base, parts, STORED / ROUTER_FILE)
    answered = {name: _answers(name, model) for name, model in models.items()}
    digests = {name: digest(weights) for name, weights in {"base": base, **experts}.items()}
    _write_profiles(models, answered)
    _write_manifest(models, answered, digests, scale)
    _write_cards(models, answered)


def choose_scale(base: Mapping[str, Tensor], experts: Sequence[Mapping[str, Tensor]]) -> float:
    """The scale of task arithmetic that does best on questions kept for this choice."""
    tokenizer = build_tokenizer()
    found = {}
    for scale in SCALES:
        shares = measure(load_model(merged_weights(base, experts, scale)), tokenizer, seed=SCALE_SEED, count=20)
        found[scale] = sum(shares.values()) / len(shares)
        logger.info("merge at %.1f: %.3f %s", scale, found[scale], shares)
    return max(found, key=lambda scale: found[scale])


def _answers(name: str, model: nn.Module) -> dict[str, Any]:
    """Marks on the profile's questions, and shares right on those of the card."""
    tokenizer = build_tokenizer()
    marks = grade(model, tokenizer, fresh_questions(PROFILE_SEED, PROFILE_QUESTIONS))
    test = fresh_questions(TEST_SEED, TEST_QUESTIONS)
    shares = shares_right(test, grade(model, tokenizer, test))
    logger.info("%s %s", name, shares)
    return {"marks": "".join("01"[mark] for mark in marks), "shares": shares}


def _size(model: nn.Module) -> int:
    from merge_backends.moe.mixture import size_of

    return size_of(model).parameters


def _write_profiles(models: Mapping[str, nn.Module], answered: Mapping[str, Any]) -> None:
    questions = fresh_questions(PROFILE_SEED, PROFILE_QUESTIONS)
    record = {
        "suite": SUITE,
        "items": [question.prompt for _, question in questions],
        "models": {
            name: {"parameters": _size(model), "context_window": CONTEXT_WINDOW, "answers": answered[name]["marks"]}
            for name, model in models.items()
        },
    }
    (HERE / "profiles.json").write_text(json.dumps(record, indent=1) + "\n")


def _write_manifest(
    models: Mapping[str, nn.Module], answered: Mapping[str, Any], digests: Mapping[str, str], scale: float
) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(STORED.iterdir())
        if path.is_file()
    }
    settings = json.dumps([files, scale], sort_keys=True).encode()
    record = {
        "digest": hashlib.sha256(settings).hexdigest(),
        "commands": COMMANDS,
        "licence": LICENCE,
        "experts": list(SKILLS),
        "merge_scale": scale,
        "files": files,
        "models": {
            name: {
                "digest": digests.get(name),
                "parameters": _size(model),
                "exact_match": {skill: round(share, 4) for skill, share in answered[name]["shares"].items()},
            }
            for name, model in models.items()
        },
    }
    (HERE / "manifest.json").write_text(json.dumps(record, indent=1) + "\n")


def _write_cards(models: Mapping[str, nn.Module], answered: Mapping[str, Any]) -> None:
    from merge_backends.zoo.cards import write_cards

    write_cards(
        HERE / "CARDS.md",
        {name: _size(model) for name, model in models.items()},
        {name: each["shares"] for name, each in answered.items()},
        questions=TEST_QUESTIONS,
        training={"base": BASE, **EXPERTS},
        rank=RANK,
        merged=MERGED,
        commands=COMMANDS,
    )


if __name__ == "__main__":
    main()
