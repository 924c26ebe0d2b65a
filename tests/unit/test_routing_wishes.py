"""Wishes come by body field, header or preset, and bad ones are named."""

import pytest

from gateway.errors import InvalidBody
from gateway.routing.policy import worth_usd
from gateway.routing.wishes import NOTHING, Wishes, parse_wishes


def test_no_wish_costs_nothing() -> None:
    assert parse_wishes(None, {}) is NOTHING


def test_presets_set_the_dial() -> None:
    assert parse_wishes(None, {}, "auto:best").quality == 1.0
    assert parse_wishes(None, {}, "auto:fast").fast


def test_the_body_wins_over_headers_and_headers_over_presets() -> None:
    headers = {"x-orbweaver-quality": "0.4", "x-orbweaver-allow": "a, b", "x-orbweaver-max-cost-usd": "0.01"}
    wishes = parse_wishes({"quality": 0.9}, headers, "auto:cheap")
    assert wishes == Wishes(quality=0.9, allow=frozenset({"a", "b"}), max_cost_usd=0.01)
    assert parse_wishes(None, headers, "auto:cheap").quality == 0.4


@pytest.mark.parametrize(
    ("field", "headers", "names"),
    [
        ({"qualty": 1}, {}, "orbweaver.qualty"),
        ({"quality": 1.5}, {}, "orbweaver.quality"),
        ({"quality": "high"}, {}, "'high'"),
        ({"quality": True}, {}, "True"),
        (None, {"x-orbweaver-quality": "much"}, "'much'"),
        ({"max_cost_usd": -1}, {}, "orbweaver.max_cost_usd"),
        ({"allow": {"a": 1}}, {}, "orbweaver.allow"),
        ({"allow": ["x"] * 101}, {}, "at most 100"),
        ({"session": ""}, {}, "orbweaver.session"),
        ({"explain": "yes"}, {}, "orbweaver.explain"),
        ([1], {}, "must be an object"),
        ({"max_cost_usd": float("nan")}, {}, "orbweaver.max_cost_usd"),
    ],
    ids=range(12),
)
def test_a_bad_wish_is_named(field: object, headers: dict[str, str], names: str) -> None:
    with pytest.raises(InvalidBody, match=None) as caught:
        parse_wishes(field, headers)
    assert names in str(caught.value)


def test_worth_grows_with_the_dial_and_is_unbounded_at_one() -> None:
    assert worth_usd(0.0) == pytest.approx(1e-4)
    assert worth_usd(0.5) == pytest.approx(1e-2)
    assert worth_usd(1.0) == float("inf")


def test_a_preference_is_scaled_to_one_and_may_come_as_a_header() -> None:
    wanted = (("arithmetic", 0.75), ("dates", 0.25))
    assert parse_wishes({"preference": {"arithmetic": 3, "dates": 1, "text": 0}}, {}).preference == wanted
    assert parse_wishes(None, {"x-orbweaver-preference": "arithmetic=3, dates=1"}).preference == wanted


@pytest.mark.parametrize("wrong", [{}, {"a": 0}, {"a": -1}, {"a": "much"}, ["a"], {"a": True}])
def test_a_preference_without_weights_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(InvalidBody, match=r"orbweaver\.preference"):
        parse_wishes({"preference": wrong}, {})
