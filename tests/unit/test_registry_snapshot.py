"""Snapshots and encodings: pure values."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.encoding import (
    candidate_from_json,
    candidate_to_json,
    hash_secret,
    is_key_of_ours,
    key_to_json,
    new_secret,
)
from gateway.registry.records import Ability, Candidate, ClientKey, Deployment, Endpoint
from gateway.registry.snapshot import Snapshot, StoredCandidate, merge_candidates
from tests.support.registry import candidate

NUMBERS = st.none() | st.floats(0, 1e6)


def test_enabled_holds_only_what_may_be_used() -> None:
    snapshot = Snapshot(candidates={"a": candidate("a"), "b": candidate("b", enabled=False)})
    assert list(snapshot.enabled) == ["a"]


def test_a_switch_without_a_candidate_behind_it_has_no_effect() -> None:
    merged, notes = merge_candidates([candidate("a")], [StoredCandidate("gone", False)])
    assert (list(merged), notes) == (["a"], {})


def test_an_override_keeps_its_place_in_the_order() -> None:
    stored = [StoredCandidate("a", True, candidate("a", price_in=2.0)), StoredCandidate("c", True, candidate("c"))]
    merged, notes = merge_candidates([candidate("a"), candidate("b")], stored)
    assert list(merged) == ["a", "b", "c"]
    assert set(notes) == {"a"}


@given(
    price=NUMBERS,
    window=st.none() | st.integers(1, 10**9),
    can=st.frozensets(st.sampled_from(Ability)),
    endpoints=st.frozensets(st.sampled_from(Endpoint), min_size=1),
    weight=st.floats(0.1, 10),
    model=st.text(min_size=1),
)
def test_a_candidate_comes_back_from_json_as_it_went(
    price: float | None,
    window: int | None,
    can: frozenset[Ability],
    endpoints: frozenset[Endpoint],
    weight: float,
    model: str,
) -> None:
    places = (
        Deployment("a#0", "http://x/v1", model, weight=weight),
        Deployment("a#1", "http://y/v1", "b", "gemini", "K"),
    )
    one = Candidate("a", places, price_in=price, context_window=window, can=can, endpoints=endpoints)
    assert candidate_from_json(candidate_to_json(one)) == one


def test_what_a_newer_release_wrote_is_left_out() -> None:
    data = candidate_to_json(candidate())
    data |= {"taste": "umami", "can": ["tools", "telepathy"]}
    data["deployments"][0]["planet"] = "Mars"
    assert candidate_from_json(data) == candidate(can=frozenset({Ability.TOOLS}))


def test_secrets_have_the_documented_form_and_are_all_different() -> None:
    secrets = {new_secret() for _ in range(200)}
    assert len(secrets) == 200
    assert all(re.fullmatch(r"ow-[0-9A-Za-z]{43}", secret) for secret in secrets)
    assert all(is_key_of_ours(secret) for secret in secrets)


@pytest.mark.parametrize(
    "other", ["", "ow-", "ow-test", "sk-" + "a" * 43, "a" * 46, "ow-" + "a" * 42, "ow-" + "é" * 43]
)
def test_keys_of_other_makers_are_not_taken_for_ours(other: str) -> None:
    assert not is_key_of_ours(other)


def test_a_key_is_hashed_with_sha256_and_its_hash_is_never_shown() -> None:
    hashed = hash_secret("ow-test")
    assert hashed == "0ddb055654838758f095d10ef85a910c88c1ae94743e5ffa466bb6561b4f5cd1"
    key = ClientKey("key-1", "team", hashed, "ow-test")
    assert hashed not in repr(key_to_json(key))
