"""The card as one HTML page that needs nothing else: no script, no font, no picture from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from aptitude_tests.card import Card, Interval, TaskResult, pool_share, standouts
from aptitude_tests.report import format_facts, speed_facts

_MOST_MODELS = 12
_CELL_W, _CELL_H, _NAME_W, _HEAD_H = 58, 26, 170, 112

_STYLE = """
:root { --ink:#1b2430; --soft:#5b6878; --line:#d9dfe6; --paper:#fff; --back:#f4f6f8; --own:#1f6feb; --pool:#b35900; }
@media (prefers-color-scheme: dark) {
  :root { --ink:#e6ebf1; --soft:#9aa7b5; --line:#313b47; --paper:#161c24; --back:#0e1319;
    --own:#6aa8ff; --pool:#ffb066; }
}
* { box-sizing:border-box } body { margin:0; background:var(--back); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif }
main { max-width:1080px; margin:0 auto; padding:24px 16px }
h1 { font-size:26px; margin:0; overflow-wrap:anywhere } h2 { font-size:17px; margin:0 0 12px } p { margin:4px 0 }
.soft { color:var(--soft) } section { background:var(--paper); border:1px solid var(--line); border-radius:8px;
  padding:16px; margin-top:16px } .big { font-size:34px; font-weight:650; margin-right:10px }
.facts { display:flex; flex-wrap:wrap; gap:4px 20px; margin-top:8px }
.row { display:grid; grid-template-columns:minmax(150px,260px) 1fr 118px; gap:10px; align-items:center;
  min-height:26px }
.row span { overflow-wrap:anywhere; line-height:1.25 } .row .n { text-align:right; font-variant-numeric:tabular-nums }
.row svg { width:100%; height:18px; display:block } .group { margin:12px 0 2px; font-weight:600 }
.two { display:grid; grid-template-columns:1fr 1fr; gap:16px } .two section { margin-top:0 } .two { margin-top:16px }
ul { margin:0; padding-left:18px } .scroll { overflow-x:auto } .scroll svg { display:block } svg text { fill:var(--ink);
  font:12px system-ui,sans-serif } table { border-collapse:collapse; width:100% } td,th { text-align:left;
  padding:4px 10px 4px 0; border-bottom:1px solid var(--line); font-variant-numeric:tabular-nums }
.key { display:inline-block; width:10px; height:10px; border-radius:5px; margin:0 4px 0 10px }
@media (max-width:640px) { .two { grid-template-columns:1fr } .row { grid-template-columns:1fr 104px; gap:2px 8px;
  padding:4px 0 } .row svg { grid-column:1/3; grid-row:2 } .row .n { font-size:13px } }
"""


def render_page(card: Card, pool: Sequence[Card]) -> str:
    """The whole page.

    Args:
        pool: cards of the other models; the first twelve stand in the heat map.
    """
    share = card.overall
    when = datetime.fromtimestamp(card.measured_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = [
        f"<h1>{escape(card.model)}</h1>"
        f'<p class="soft">{escape(card.suite)} version {card.suite_version}, seed {card.seed}, measured {when}</p>',
        _section("", f'<span class="big">{share.share:.0%}</span>right, 90 % interval {_range(share)}, of '
                     f"{card.replies} replies{_standing(card)}{_facts(card)}"),
        _standouts(card, pool),
        _section("Accuracy by task", _legend(pool) + _tasks(card, pool)),
        _section("Accuracy by domain, beside the pool", _heat_map(card, pool)),
        _wins(card),
        _probes(card),
        _notes(card),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(card.model)}: aptitude</title><style>{_STYLE}</style></head>\n<body><main>"
        + "\n".join(sections)
        + "</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section>{f'<h2>{escape(title)}</h2>' if title else ''}{body}</section>" if body else ""


def _range(value: Interval) -> str:
    return f"{value.low:.0%} to {value.high:.0%}"


def _standing(card: Card) -> str:
    if card.standing is None:
        return ""
    found = card.standing
    return (
        f"<p>On typical prompts routing expects P(correct) {found['p']:.2f} "
        f"({found['p_low']:.2f} to {found['p_high']:.2f}).</p>"
    )


def _facts(card: Card) -> str:
    money = "no price declared" if card.cost_usd is None else f"the test cost ${card.cost_usd:.4f}"
    return _spans([money, *speed_facts(card)]) + _spans([format_facts(card)])


def _spans(parts: Iterable[str]) -> str:
    return f'<div class="facts soft">{"".join(f"<span>{escape(part)}</span>" for part in parts)}</div>'


def _standouts(card: Card, pool: Sequence[Card]) -> str:
    strengths, weaknesses = standouts(card, pool)
    against = "the pool" if pool else "its own mean"

    def listed(title: str, tasks: Sequence[TaskResult]) -> str:
        items = "".join(f"<li>{escape(task.summary)} ({task.interval.share:.0%})</li>" for task in tasks[:6])
        return _section(title, f"<ul>{items}</ul>" if items else '<p class="soft">None stands out.</p>')

    return (
        f'<div class="two">{listed(f"Stronger than {against}", strengths)}'
        f"{listed(f'Weaker than {against}', weaknesses)}</div>"
    )


def _legend(pool: Sequence[Card]) -> str:
    pooled = '<i class="key" style="background:var(--pool)"></i>mean of the other models' if pool else ""
    return (
        f'<p class="soft"><i class="key" style="background:var(--own);margin-left:0"></i>this model, '
        f"with its 90 % interval{pooled}</p>"
    )


def _tasks(card: Card, pool: Sequence[Card]) -> str:
    rows = []
    for domain in sorted({task.domain for task in card.tasks}):
        rows.append(f'<div class="group">{escape(domain)}</div>')
        rows += [_task_row(task, pool_share(task.name, pool)) for task in card.tasks if task.domain == domain]
    return "".join(rows)


def _task_row(task: TaskResult, pooled: float | None) -> str:
    value = task.interval
    tick = (
        ""
        if pooled is None
        else f'<rect x="{100 * pooled - 0.4:.2f}" y="1" width="0.8" height="16" fill="var(--pool)"/>'
    )
    chart = (
        '<svg viewBox="0 0 100 18" preserveAspectRatio="none" aria-hidden="true">'
        '<rect x="0" y="8.5" width="100" height="1" fill="var(--line)"/>'
        f'<rect x="{100 * value.low:.2f}" y="6" width="{100 * (value.high - value.low):.2f}" height="6" '
        f'fill="var(--own)" opacity=".35"/>{tick}'
        f'<rect x="{max(0.0, 100 * value.share - 0.6):.2f}" y="3" width="1.2" height="12" fill="var(--own)"/></svg>'
    )
    failed = f", {task.no_answer} without an answer" if task.no_answer else ""
    title = escape(f"{task.summary} {task.right:g} of {task.asked} right{failed}")
    return (
        f'<div class="row" title="{title}"><span>{escape(task.name)}</span>{chart}'
        f'<span class="n">{value.share:.0%} of {task.asked}{"*" if task.no_answer else ""}</span></div>'
    )


def _heat_map(card: Card, pool: Sequence[Card]) -> str:
    """Domains against models as an inline SVG; a cell says its share in words and in colour."""
    cards = [card, *pool[:_MOST_MODELS]]
    tables = [one.by("domain") for one in cards]
    domains = sorted({domain for table in tables for domain in table})
    width, height = _NAME_W + _CELL_W * len(cards) + 100, _HEAD_H + _CELL_H * len(domains) + 4
    parts = [f'<svg width="{width}" height="{height}" role="img" aria-label="Accuracy by domain and model">']
    for column, one in enumerate(cards):
        x = _NAME_W + column * _CELL_W + _CELL_W / 2
        name = one.model if len(one.model) <= 16 else one.model[:15] + "…"
        weight = ' font-weight="700"' if column == 0 else ""
        parts.append(
            f'<text x="{x}" y="{_HEAD_H - 8}" transform="rotate(-40 {x} {_HEAD_H - 8})"{weight}>{escape(name)}</text>'
        )
    for row, domain in enumerate(domains):
        y = _HEAD_H + row * _CELL_H
        parts.append(f'<text x="0" y="{y + 17}">{escape(domain)}</text>')
        for column, table in enumerate(tables):
            x = _NAME_W + column * _CELL_W
            parts.append(_cell(x, y, table.get(domain)))
    return f'<div class="scroll">{"".join(parts)}</svg></div>'


def _cell(x: int, y: int, value: Interval | None) -> str:
    box = f'x="{x + 1}" y="{y + 1}" width="{_CELL_W - 2}" height="{_CELL_H - 2}" rx="3"'
    if value is None:
        return f'<rect {box} fill="none" stroke="var(--line)"/>'
    hue = 8 + 132 * value.share
    text = (
        f'<text x="{x + _CELL_W / 2}" y="{y + 17}" text-anchor="middle" style="fill:#10151b">{value.share:.0%}</text>'
    )
    return f'<rect {box} fill="hsl({hue:.0f} 62% 72%)"/>{text}'


def _wins(card: Card) -> str:
    models = {name for shares in card.wins.values() for name in shares}
    if len(models) < 2:
        return ""
    rows = []
    for quality, shares in card.wins.items():
        others = sorted(((share, name) for name, share in shares.items() if name != card.model and share), reverse=True)
        rest = ", ".join(f"{escape(name)} {share:.0%}" for share, name in others[:3])
        rows.append(
            f"<tr><td>{escape(quality)}</td><td><b>{shares.get(card.model, 0.0):.0%}</b></td><td>{rest}</td></tr>"
        )
    head = "<tr><th>quality</th><th>this model</th><th>others</th></tr>"
    text = '<p class="soft">0 is the cheapest that will do, 1 the best at any price.</p>'
    return _section(
        "What it wins in the present pool, by the quality dial", f"{text}<table>{head}{''.join(rows)}</table>"
    )


def _probes(card: Card) -> str:
    if card.probes is None:
        return ""
    word = {True: "yes", False: "no", None: "unknown"}
    rows = [
        f"<tr><td>{escape(name)}</td><td>{word[found['able']]}</td><td class=soft>{escape(found['detail'])}</td></tr>"
        for name, found in card.probes["abilities"].items()
    ]
    accepted = card.probes["context_accepted"]
    rows.append(
        f"<tr><td>prompt taken</td><td>{accepted or 'unknown'}</td><td class=soft>tokens, the longest tried</td></tr>"
    )
    languages = ", ".join(card.probes["languages"]) or "none of those asked"
    rows.append(f"<tr><td>languages</td><td colspan=2>{escape(languages)}</td></tr>")
    return _section("Probes", f"<table>{''.join(rows)}</table>")


def _notes(card: Card) -> str:
    notes = [*card.notes, *([card.early] if card.early else [])]
    if card.drift is not None:
        notes.append(str(card.drift["words"]))
    if any(task.no_answer for task in card.tasks):
        notes.append("* Some replies to this task held no answer; they count as not right.")
    return _section("Notes", f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>" if notes else "")
