"""Licences of the parents, and what they leave for the merge: the most restrictive wins, unknown blocks export."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import yaml

from merge_backends.errors import LicenceError


class Terms(IntEnum):
    """What a licence asks, from nothing to no derivatives at all; unknown stands above what is known to be allowed."""

    FREE = 0
    ATTRIBUTION = 1
    SHARE_ALIKE = 2
    NAME_CLAUSE = 3
    NON_COMMERCIAL = 4
    UNKNOWN = 5
    NO_DERIVATIVES = 6


OBLIGATIONS = {
    Terms.ATTRIBUTION: "keep the notices of the parents",
    Terms.SHARE_ALIKE: "share the merge under the same licence",
    Terms.NAME_CLAUSE: "follow the parent's rules of use and naming",
    Terms.NON_COMMERCIAL: "no commercial use",
    Terms.UNKNOWN: "find out the licence of the parent",
    Terms.NO_DERIVATIVES: "do not pass the merge on",
}
_PATTERNS = (
    (r"(^|-)nd(-|$)", Terms.NO_DERIVATIVES),
    (r"(^|-)nc(-|$)|non-?commercial|research-only", Terms.NON_COMMERCIAL),
    (r"^(llama|gemma|openrail|bigscience|creativeml|deepseek|qwen|falcon|bigcode)", Terms.NAME_CLAUSE),
    (r"(^|-)sa(-|$)|^(a|l)?gpl|^mpl|^eupl|^epl|^osl|^odbl", Terms.SHARE_ALIKE),
    (r"^(cc0|unlicense|wtfpl|pddl|0bsd)", Terms.FREE),
    (r"^(apache|mit|bsd|isc|cc-by|ms-pl|zlib|afl|artistic|cdla-permissive|ecl|postgresql)", Terms.ATTRIBUTION),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds for a merge.

    Args:
        licence: identifier of the most restrictive parent licence, or `unknown`.
        obligations: what all parents together ask, plain sentences.
        blocked: why it must not be passed on; empty where it may.
    """

    licence: str
    obligations: tuple[str, ...]
    blocked: tuple[str, ...]


def terms_of(licence: str) -> Terms:
    """What a licence identifier (SPDX or as model hubs write it) asks; UNKNOWN for those not listed."""
    name = licence.strip().lower().replace("_", "-").replace(" ", "-")
    for pattern, terms in _PATTERNS:
        if re.search(pattern, name):
            return terms
    return Terms.UNKNOWN


def read_licence(folder: Path) -> str:
    """The licence that a model's folder states: in our lineage file, or at the head of its README; else `unknown`."""
    lineage = folder / "lineage.json"
    if lineage.is_file():
        try:
            return str(json.loads(lineage.read_text(encoding="utf-8"))["licence"]["licence"])
        except (OSError, ValueError, KeyError, TypeError):
            return "unknown"
    card = folder / "README.md"
    if card.is_file():
        found = re.match(r"---\r?\n(.*?)\r?\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
        try:
            head = yaml.safe_load(found.group(1)) if found else None
        except yaml.YAMLError:
            head = None
        if isinstance(head, dict) and head.get("license"):
            stated = head.get("license_name") if head["license"] == "other" else head["license"]
            return str(stated or "unknown").lower()
    return "unknown"


def combine(licences: Sequence[str]) -> Verdict:
    """The terms of all parents together.

    Two different share-alike licences cannot both be kept, so they block; so do unknown ones and no-derivatives.
    """
    ranked = sorted(set(licences), key=lambda licence: (-terms_of(licence), licence))
    if not ranked:
        return Verdict("unknown", (OBLIGATIONS[Terms.UNKNOWN],), ("No parent states a licence.",))
    obligations = tuple(OBLIGATIONS[terms] for terms in sorted({terms_of(name) for name in ranked}) if terms)
    blocked = []
    for name in ranked:
        if terms_of(name) == Terms.UNKNOWN:
            blocked.append(f"The licence {name!r} of a parent is not known.")
        if terms_of(name) == Terms.NO_DERIVATIVES:
            blocked.append(f"The licence {name!r} of a parent forbids derivatives.")
    alike = [name for name in ranked if "-sa" in name or terms_of(name) == Terms.SHARE_ALIKE]
    if len(alike) > 1:
        blocked.append(f"The licences {alike[0]!r} and {alike[1]!r} each ask for themselves.")
    return Verdict(ranked[0] if terms_of(ranked[0]) != Terms.UNKNOWN else "unknown", obligations, tuple(blocked))


def require_export(verdict: Verdict, *, allow_unknown: bool = False) -> None:
    """Raises LicenceError where the merge must not be passed on; `allow_unknown` lifts what is not known, only that."""
    reasons = [reason for reason in verdict.blocked if not (allow_unknown and "not known" in reason)]
    if reasons:
        raise LicenceError(
            f"The merge must not be exported. {' '.join(reasons)}",
            "State the licence in the parent's README.md (`license:` at its head), or allow unknown licences.",
        )
