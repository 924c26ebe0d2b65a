"""The zoo's model cards as one page of Markdown: what each model is for, how large it is, how often it is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from merge_backends.zoo.skills import SKILLS, draw_questions
from merge_backends.zoo.train import Schedule

ABOUT = {
    "base": "the common ancestor: easy questions of all skills, and one full-size question in eight",
    "merge": "task arithmetic of all experts, one dense model of the base's size",
    "smile": "SMILE mixture: the experts' low-rank changes, chosen per token and layer without training",
    "wemoe": "WEMoE mixture: every linear map merged per question by small routers",
}
HEAD = """# The bundled zoo

Small language models, trained from nothing on questions that `merge_backends/zoo/skills` draws. Every answer can be
checked exactly. They are here so that a fresh installation has something to route to, to merge and to measure; they
know nothing of the world, see only the last question of a conversation, and answer in a few words. A question that is
put in other words than the ones they were trained on often fails.

Licence: Apache-2.0, weights included. No text of any data set was used. This page is written by `{pack}`.
"""

HISTORY = (
    "One thread; the same command gives the same weights on the same machine and thread count. Eighteen CPU minutes",
    "for the base, one to six for each expert.",
)


def write_cards(
    path: Path,
    sizes: Mapping[str, int],
    shares: Mapping[str, Mapping[str, float]],
    *,
    questions: int,
    training: Mapping[str, Schedule],
    rank: int,
    merged: Sequence[str],
    commands: Sequence[str],
) -> None:
    """Write the page.

    Args:
        sizes: parameters by model, as held in memory.
        shares: share of exactly right answers by model and skill, on `questions` fresh ones of each skill.
        merged: names of the models that were merged rather than trained.
    """
    lines = [HEAD.format(pack=commands[-1]), "## Exact match", ""]
    lines += [f"Share of {questions} fresh questions of each skill, greedy.", ""]
    lines += [f"| model | parameters | {' | '.join(SKILLS)} | mean |", f"|---|---|{'---|' * (len(SKILLS) + 1)}"]
    for name, found in shares.items():
        mean = sum(found.values()) / len(found)
        cells = " | ".join(f"{100 * found[skill]:.1f}" for skill in SKILLS)
        lines.append(f"| zoo/{name} | {sizes[name] / 1e6:.2f} M | {cells} | {100 * mean:.1f} |")
    lines += ["", "## Models", ""]
    for name in shares:
        if name in ABOUT:
            lines.append(f"- **zoo/{name}**: {ABOUT[name]}.")
        else:
            lines.append(
                f"- **zoo/{name}**: the base with a change of rank {rank} to every linear map, tuned on this skill."
            )
    lines += ["", "## Questions to try", ""]
    for skill in SKILLS:
        lines += [f"- {skill}: {question.prompt}" for question in draw_questions(skill, seed=5, count=3)]
    lines += ["", "## Training", "", "One CPU core, bfloat16 arithmetic on float32 weights, AdamW, one seed:", ""]
    lines += [f"    {command}" for command in commands]
    lines += ["", *HISTORY]
    lines += ["", "| model | steps | questions per step | learning rate |", "|---|---|---|---|"]
    for name, schedule in training.items():
        lines.append(f"| {name} | {schedule.steps} | {schedule.examples} | {schedule.rate:g} |")
    lines.append("")
    path.write_text("\n".join(lines))
    assert all(name in shares for name in merged)
