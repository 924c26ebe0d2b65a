"""The dashboard's own files: readable colours in both themes, nothing from elsewhere, no markup set from values."""

from __future__ import annotations

import re

import pytest

from gateway.api.dashboard import CONTENT_TYPES, STATIC

PAIRS = [
    ("ink", "ground"),
    ("ink", "surface"),
    ("ink", "sunken"),
    ("soft", "ground"),
    ("soft", "surface"),
    ("soft", "sunken"),
    ("accent", "surface"),
    ("accent", "accent-wash"),
    ("accent-ink", "accent"),
    ("soft", "accent-wash"),
    ("warn", "warn-wash"),
    ("bad", "bad-wash"),
]


def colours(theme: str) -> dict[str, str]:
    """The colour variables of one theme."""
    css = (STATIC / "dashboard.css").read_text()
    block = re.search(r":root\[data-theme=\"dark\"\] \{(.*?)\}" if theme == "dark" else r":root \{(.*?)\}", css, re.S)
    assert block is not None
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block[1]))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it, 0..1."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_text_stands_out_from_what_is_behind_it(theme: str, front: str, back: str) -> None:
    known = colours(theme)
    darker, lighter = sorted((luminance(known[front]), luminance(known[back])))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2 AA for normal text


def test_every_file_of_the_page_is_served_and_every_served_file_exists() -> None:
    assert {path.name for path in STATIC.iterdir()} == set(CONTENT_TYPES)


@pytest.mark.parametrize("name", [name for name in CONTENT_TYPES if name.endswith(".js")])
def test_scripts_never_set_markup_from_values(name: str) -> None:
    text = (STATIC / name).read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


def test_the_page_has_no_inline_script_or_style() -> None:
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=", html)
    assert "//" not in re.sub(r"<!--.*?-->", "", html).replace("http://www.w3.org", "")
