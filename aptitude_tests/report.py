"""The card as text: what a model can do, beside the pool, in the width of a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from aptitude_tests.card import Card, Interval, TaskResult, pool_share, standouts

_BAR = 20
_MOST = 6


def card_text(card: Card, pool: Sequence[Card]) -> str:
    """Everything of the card that matters, as lines.

    Args:
        pool: cards of the other models.
    """
    share = card.overall
    lines = [
        f"{card.model}: {share.share:.0%} right [{share.low:.0%}, {share.high:.0%}] "
        f"of {card.replies} replies to {card.suite} (seed {card.seed})",
        *_facts(card),
        "",
        "By domain",
        *(_row(name, value, _pool_by(pool, "domain", name)) for name, value in card.by("domain").items()),
        "",
        "By language",
        *(_row(name, value, _pool_by(pool, "language", name)) for name, value in card.by("language").items()),
        "",
        "By task" + (" (| = mean of the pool)" if pool else ""),
        *(_row(task.name, task.interval, pool_share(task.name, pool), task) for task in card.tasks),
    ]
    against = "the pool" if pool else "its own mean"
    for title, tasks in zip((f"Stronger than {against}", f"Weaker than {against}"), standouts(card, pool), strict=True):
        if tasks:
            lines += ["", title, *(f"  {task.summary} ({task.interval.share:.0%})" for task in tasks[:_MOST])]
    return "\n".join([*lines, *_wins(card), *_notes(card)])


def _facts(card: Card) -> list[str]:
    facts = []
    if card.standing is not None:
        standing = card.standing
        facts.append(
            f"expected on typical prompts: P(correct) {standing['p']:.2f} "
            f"[{standing['p_low']:.2f}, {standing['p_high']:.2f}]"
        )
    money = "no price declared" if card.cost_usd is None else f"${card.cost_usd:.4f} for the test"
    facts.append(", ".join([money, *speed_facts(card)]))
    facts.append(format_facts(card))
    if card.probes is not None:
        able = [f"{name} {_word(found['able'])}" for name, found in card.probes["abilities"].items()]
        languages = ", ".join(card.probes["languages"]) or "none of those asked"
        facts.append(f"probes: {', '.join(able)}; languages {languages}")
    return facts


def speed_facts(card: Card) -> list[str]:
    """Speed and length in words."""
    facts = []
    probes = card.probes or {}
    if probes.get("first_token_s") is not None:
        facts.append(f"first token after {probes['first_token_s']:.2f} s")
    if probes.get("tokens_per_s") is not None:
        facts.append(f"{probes['tokens_per_s']:.0f} tokens/s")
    if card.seconds_median is not None:
        facts.append(f"median answer in {card.seconds_median:.2f} s")
    if card.tokens_mean is not None:
        facts.append(f"{card.tokens_mean:.0f} tokens a reply")
    return facts


def format_facts(card: Card) -> str:
    """Format failures in words: they are not the same as wrong answers."""
    reasons = card.reasons
    parts = [
        f"{reasons.get('no_answer', 0)} without an answer",
        f"{reasons.get('wrong_format', 0)} in the wrong format",
        f"{reasons.get('refused', 0)} refused",
        f"{reasons.get('empty', 0)} empty",
        f"{card.cut} cut at the token limit",
        f"{card.calls_without_reply} calls without a reply",
    ]
    return "format: " + ", ".join(parts)


def _pool_by(pool: Sequence[Card], attribute: str, name: str) -> float | None:
    shares = [card.by(attribute)[name].share for card in pool if name in card.by(attribute)]
    return sum(shares) / len(shares) if shares else None


def _row(name: str, value: Interval, expected: float | None, task: TaskResult | None = None) -> str:
    full = round(value.share * _BAR)
    bar = list("#" * full + "." * (_BAR - full))
    if expected is not None:
        bar[min(_BAR - 1, round(expected * _BAR))] = "|"
    pooled = "" if expected is None else f"  pool {expected:4.0%}"
    failures = f"  {task.no_answer} without an answer" if task is not None and task.no_answer else ""
    return f"  {name[:24]:24} {''.join(bar)} {value.share:4.0%} [{value.low:4.0%}, {value.high:4.0%}]{pooled}{failures}"


def _wins(card: Card) -> list[str]:
    if not card.wins:
        return []
    models = sorted({name for shares in card.wins.values() for name in shares}, key=lambda name: name != card.model)
    if len(models) < 2:
        return []
    lines = ["", "Share of typical prompts it wins, by the quality dial (0 = cheapest that will do, 1 = best)"]
    for quality, shares in card.wins.items():
        others = sorted(((share, name) for name, share in shares.items() if name != card.model and share), reverse=True)
        rest = ", ".join(f"{name} {share:.0%}" for share, name in others[:3])
        lines.append(f"  quality {quality:4} {shares.get(card.model, 0.0):4.0%}   {rest}")
    return lines


def _notes(card: Card) -> list[str]:
    notes = [*card.notes, *([card.early] if card.early else [])]
    if card.drift is not None:
        notes.append(str(card.drift["words"]))
    return ["", *(f"Note: {note}" for note in notes)] if notes else []


def _word(able: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[able]
