"""Merges by name: what is read, snapped and refused."""

from __future__ import annotations

import pytest

from merge_backends.errors import RecipeError, UnknownNameError
from merge_backends.preference import MergeOffer, snap_to_simplex

OFFER = MergeOffer("zoo", ("arithmetic", "lists", "dates", "lookup"))


def test_a_name_becomes_weights_on_the_grid_in_the_offers_order():
    assert OFFER.parse("zoo/merge:lists=0.34,arithmetic=.66") == {"arithmetic": 0.7, "lists": 0.3}


def test_other_models_are_not_read():
    assert OFFER.parse("zoo/arithmetic") is None
    assert OFFER.parse("other/merge:lists=1") is None


def test_near_weights_share_one_canonical_name():
    names = {OFFER.canonical({"lists": weight}) for weight in (0.68, 0.7, 0.72)}
    assert names == {"zoo/merge:lists=0.7"}
    assert OFFER.parse(names.pop()) == {"lists": 0.7}


@pytest.mark.parametrize(
    "parts",
    ["lists", "lists=x", "lists=-1", "lists=nan", "lists=1e9", "lists=2", "lists=0.01", "", "lists=.1,lists=.2",
     "lists=.5,dates=.5,lookup=.5,arithmetic=.5"],
)  # fmt: skip
def test_weights_that_are_out_of_bounds_are_refused(parts):
    with pytest.raises(RecipeError):
        OFFER.parse(f"zoo/merge:{parts}")


def test_an_expert_that_is_not_offered_is_refused_with_the_near_name():
    with pytest.raises(UnknownNameError, match="arithmetic"):
        OFFER.parse("zoo/merge:arithmetics=1")


def test_a_preference_snaps_to_a_grid_and_still_adds_up():
    assert snap_to_simplex({"a": 1, "b": 1, "c": 1}) == {"a": 0.4, "b": 0.3, "c": 0.3}
    assert snap_to_simplex({"a": 2.0, "b": 6.0}) == {"a": 0.3, "b": 0.7}
    assert snap_to_simplex({"a": 0.0, "b": 1.0}) == {"a": 0.0, "b": 1.0}


@pytest.mark.parametrize("given", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": float("inf")}])
def test_what_is_no_preference_is_refused(given):
    with pytest.raises(RecipeError):
        snap_to_simplex(given)


def test_weights_of_a_preference_are_shared_out() -> None:
    offer = MergeOffer("front", ("a", "b", "c"), at_once=3, sums_to_one=True)
    assert offer.weights({"a": 1.0, "b": 1.0, "c": 1.0}) == {"a": 0.4, "b": 0.3, "c": 0.3}
    assert offer.canonical({"c": 0.5, "a": 1.0}) == "front/merge:a=0.7,c=0.3"
    assert offer.parse("front/merge:a=0.35,c=0.15") == {"a": 0.7, "c": 0.3}
    with pytest.raises(UnknownNameError):
        offer.weights({"d": 1.0})
    with pytest.raises(RecipeError):
        offer.weights({"a": 0.0})
