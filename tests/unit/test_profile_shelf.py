"""Measured profiles on their way into routing: never built by a request, never half-used, never fatal."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from capability_encoder.profile import CapabilityProfile, UnknownItemsError
from gateway.encoder.shelf import ProfileShelf
from tests.support.registry import candidate

TEXT_PROFILE = {"name": "small", "answers": [{"item": "mine/1", "score": 1.0, "suite": "mine", "text": "What?"}]}


class FakeEmbedder:
    """Every text lies in the same place."""

    def embed_one(self, text: str) -> np.ndarray[Any, Any]:
        return np.ones(4, dtype=np.float32)


class FakeScorer:
    """Places texts when told to; knows the bank item `q1` alone."""

    version = "v1"
    known_models: tuple[str, ...] = ()
    embedder = FakeEmbedder()

    def __init__(self) -> None:
        self.places: set[str] = set()
        self.may_place = threading.Event()
        self.prepared = 0

    def is_placed(self, profile: CapabilityProfile) -> bool:
        return all(answer.text is None or answer.text in self.places for answer in profile.answers)

    def locate_texts(self, texts: Sequence[str]) -> None:
        assert self.may_place.wait(5)
        self.places.update(texts)

    def prepare(self, profiles: Sequence[CapabilityProfile]) -> None:
        self.prepared += 1
        unknown = [one.item for one in profiles[0].answers if one.text is None and one.item != "q1"]
        if unknown:
            raise UnknownItemsError(unknown)


async def test_a_profile_with_new_texts_is_used_once_they_are_placed() -> None:
    stored: dict[str, dict[str, Any]] = {"small": TEXT_PROFILE}
    shelf, scorer, small = ProfileShelf(lambda: stored), FakeScorer(), candidate(price_in=1.0)
    (declared,) = shelf.of(scorer, [small])  # type: ignore[arg-type]
    assert (declared.profile.answers, declared.profile.price_in) == ((), 1.0)
    scorer.may_place.set()
    async with asyncio.timeout(5):
        while not (measured := shelf.of(scorer, [small])[0]).profile.answers:  # type: ignore[arg-type]
            await asyncio.sleep(0.005)
    assert measured.serial != declared.serial
    await shelf.close()


async def test_a_profile_is_built_once_until_it_or_the_candidate_changes() -> None:
    stored: dict[str, dict[str, Any]] = {"small": {"name": "small", "answers": [{"item": "q1", "score": 1.0}]}}
    shelf, scorer, small = ProfileShelf(lambda: stored), FakeScorer(), candidate()
    first = shelf.of(scorer, [small])[0]  # type: ignore[arg-type]
    assert shelf.of(scorer, [small])[0] is first  # type: ignore[arg-type]
    assert scorer.prepared == 1
    stored["small"] = {"name": "small", "answers": []}
    assert shelf.of(scorer, [small])[0].serial != first.serial  # type: ignore[arg-type]


async def test_an_imported_profile_of_unknown_items_is_left_aside_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stored: dict[str, dict[str, Any]] = {"small": {"name": "small", "answers": [{"item": "alien", "score": 1.0}]}}
    shelf = ProfileShelf(lambda: stored)
    assert shelf.of(FakeScorer(), [candidate()])[0].profile.answers == ()  # type: ignore[arg-type]
    assert "unknown aptitude items 'alien'" in caplog.text
