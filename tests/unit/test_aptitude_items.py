"""Items, registries, rendering and the circle test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from aptitude_tests.circle import can_rotate, close_circle, hard_items, rotate, rotations
from aptitude_tests.generators import canvas
from aptitude_tests.generators.canvas import Canvas
from aptitude_tests.item import LANGUAGES, Item, Picture, Reply, Suite, Verdict
from aptitude_tests.registry import Registry
from aptitude_tests.render import render, render_text
from aptitude_tests.scorers import SCORERS, score

ITEM = Item("s/t/0", "t", 0, "Which?", "B", "choice", options=("one", "two", "three", "four"), difficulty="hard")
RIGHT, WRONG, NONE = Verdict(1.0, "B", "right"), Verdict(0.0, "A", "wrong"), Verdict(None, None, "no_answer")


def test_the_hash_is_over_content_and_not_over_place() -> None:
    assert replace(ITEM, id="other", shot=3, task="u").hash == ITEM.hash
    assert replace(ITEM, question="Which one?").hash != ITEM.hash
    assert replace(ITEM, gold="A").hash != ITEM.hash


def test_the_hash_of_an_image_is_over_its_pixels() -> None:
    one, two = (replace(ITEM, images=(Picture(url, "d" * 32),)) for url in ("data:a", "data:b"))
    assert one.hash == two.hash


@pytest.mark.parametrize("by", [1, 2, 3])
def test_the_gold_letter_follows_the_right_option(by: int) -> None:
    turned = rotate(ITEM, by)
    assert turned.options["ABCD".index(turned.gold)] == "two"
    assert sorted(turned.options) == sorted(ITEM.options)
    assert turned.id == f"s/t/0#r{by}"
    assert turned.hash != ITEM.hash


def test_a_full_turn_changes_nothing() -> None:
    assert rotate(ITEM, 4) == ITEM


def test_rotations_are_different_and_never_the_item_itself() -> None:
    assert {item.options for item in rotations(ITEM, 9)} == {rotate(ITEM, by).options for by in (1, 2, 3)}


def test_options_that_speak_of_each_other_are_not_rotated() -> None:
    assert not can_rotate(replace(ITEM, options=("one", "two", "both A and B", "none of the above")))
    assert rotations(replace(ITEM, options=("one", "All of the above")), 1) == ()


@pytest.mark.parametrize(
    ("turns", "outcome"),
    [([RIGHT, RIGHT], 1.0), ([RIGHT, WRONG], 0.0), ([RIGHT, NONE], None), ([NONE, WRONG], 0.0), ([NONE, NONE], None)],
)
def test_a_circle_is_right_only_if_every_turn_is(turns: list[Verdict], outcome: float | None) -> None:
    assert close_circle(turns).score == outcome


def test_a_fixed_letter_does_not_survive_the_circle() -> None:
    turns = [ITEM, *rotations(ITEM, 3)]
    assert score(ITEM, Reply("B")).score == 1.0
    assert close_circle([score(turn, Reply("B")) for turn in turns]).score == 0.0


def test_hard_items_are_those_that_few_known_models_solved() -> None:
    items = (ITEM, replace(ITEM, id="s/t/1", difficulty="easy"), replace(ITEM, id="s/t/2"))
    suite = Suite("s", 1, "", 0, (), items, {"s/t/1": {"p_seen": 0.2}, "s/t/2": {"p_seen": 0.9}})
    assert [item.id for item in hard_items(suite)] == ["s/t/0", "s/t/1"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_a_format_instruction_for_every_scorer_that_needs_one(language: str) -> None:
    for scorer in ("choice", "number", "text", "date", "code", "json", "constraints"):
        text = render_text(replace(ITEM, options=(), scorer=scorer, language=language))  # type: ignore[arg-type]
        assert text.startswith("Which?\n\n"), scorer
        assert len(text.splitlines()) == 3, scorer


def test_an_item_with_images_is_sent_as_parts() -> None:
    drawn = Canvas(8, 8)
    (message,) = render(replace(ITEM, images=(drawn.picture(),))).messages
    assert [part["type"] for part in message["content"]] == ["text", "image_url"]


def test_a_canvas_is_a_png_that_others_can_read() -> None:
    image = pytest.importorskip("PIL.Image")
    import base64
    import io

    drawn = Canvas(20, 10)
    drawn.rectangle(2, 3, 4, 5, canvas.RED)
    data = base64.b64decode(drawn.picture().data_url.split(",", 1)[1])
    with image.open(io.BytesIO(data)) as read:
        pixels = read.convert("RGB")
        assert pixels.size == (20, 10)
        assert [pixels.getpixel(at) for at in ((2, 3), (5, 7), (6, 7), (0, 0))] == [(214, 39, 40)] * 2 + [
            (255,) * 3
        ] * 2


def test_unknown_names_are_refused_with_near_ones() -> None:
    with pytest.raises(LookupError, match="did you mean 'number'"):
        SCORERS.get("numbers")


def test_a_name_cannot_be_registered_twice() -> None:
    @dataclass(frozen=True)
    class Entry:
        name: str

    registry: Registry[Entry] = Registry("thing", group="none")
    registry.add(Entry("a"))
    with pytest.raises(ValueError, match="registered twice"):
        registry.add(Entry("a"))
