"""`ProfileShelf`: capability profiles of the candidates as the scorer takes them, kept so that a request builds none.

A measured profile is used once its posterior can be had at once: texts of items that the encoder has not placed yet are
embedded in a thread, and until that is done the candidate keeps the profile it had, or its declared figures.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from gateway.encoder.profiles import profile_of
from gateway.registry.records import Candidate

if TYPE_CHECKING:
    from capability_encoder.near_answers import TextVectors
    from capability_encoder.profile import CapabilityProfile
    from capability_encoder.scorer import CapabilityScorer

log = logging.getLogger(__name__)
Profiles = Callable[[], Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Shelved:
    """A profile ready for a scorer. `serial` stands for it as a key: hashing a thousand answers costs too much."""

    candidate: Candidate
    stored: Mapping[str, Any] | None
    profile: CapabilityProfile
    serial: int


class ProfileShelf:
    """Profiles by scorer version and candidate. Belongs to one event loop.

    Args:
        profiles: reads the stored profiles (JSON by candidate name) of the registry's newest snapshot.
    """

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles
        self._shelved: dict[tuple[str, str], Shelved] = {}
        self._placing: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._vectors: dict[str, TextVectors] = {}
        self._serials = count()

    def of(self, scorer: CapabilityScorer, candidates: Sequence[Candidate]) -> tuple[Shelved, ...]:
        """One entry for each candidate, at once."""
        stored = self._profiles()
        return tuple(self._one(scorer, candidate, stored.get(candidate.name)) for candidate in candidates)

    def place_all(self, scorer: CapabilityScorer) -> None:
        """Place the texts of all stored profiles, so that a fresh scorer knows them at once. Slow: for a thread."""
        stored = list(self._profiles().values())
        texts = {answer["text"] for one in stored for answer in one.get("answers", ()) if answer.get("text")}
        if texts:
            self.vectors(scorer).add(sorted(texts))
            scorer.locate_texts(sorted(texts))

    def vectors(self, scorer: CapabilityScorer) -> TextVectors:
        """Vectors of the item texts that have been placed so far."""
        from capability_encoder.near_answers import TextVectors

        return self._vectors.setdefault(scorer.version, TextVectors(scorer))

    def keep(self, versions: Collection[str]) -> None:
        """Forget what was made ready for scorers of other versions."""
        for key in [key for key in self._shelved if key[0] not in versions]:
            del self._shelved[key]
        for version in [version for version in self._vectors if version not in versions]:
            del self._vectors[version]

    async def close(self) -> None:
        """Wait for what is under way in threads."""
        await asyncio.gather(*self._placing.values(), return_exceptions=True)

    def _one(self, scorer: CapabilityScorer, candidate: Candidate, stored: Mapping[str, Any] | None) -> Shelved:
        key = (scorer.version, candidate.name)
        found = self._shelved.get(key)
        if found is not None and found.candidate is candidate and found.stored is stored:
            return found
        from capability_encoder.profile import ProfileError

        known = scorer.known_models
        try:
            profile = profile_of(candidate, stored, known)
            if not (scorer.is_placed(profile) and self.vectors(scorer).holds(_texts(profile))):
                self._place(key, scorer, profile)
                if found is not None and found.candidate is candidate:
                    return found
                # Marked as holding nothing stored, so that the next request looks again.
                declared = Shelved(candidate, None, profile_of(candidate, None, known), next(self._serials))
                self._shelved[key] = declared
                return declared
            scorer.prepare([profile])
        except ProfileError as error:
            log.warning("The profile of %s is left aside, its declared figures count: %s", candidate.name, error)
            profile = profile_of(candidate, None, known)
        fresh = Shelved(candidate, stored, profile, next(self._serials))
        self._shelved[key] = fresh
        return fresh

    def _place(self, key: tuple[str, str], scorer: CapabilityScorer, profile: CapabilityProfile) -> None:
        if key in self._placing:
            return
        texts, vectors = _texts(profile), self.vectors(scorer)

        def place() -> None:
            vectors.add(texts)
            scorer.locate_texts(texts)

        async def work() -> None:
            try:
                await asyncio.to_thread(place)
            finally:
                del self._placing[key]

        self._placing[key] = asyncio.get_running_loop().create_task(work(), name=f"place {profile.name}")


def _texts(profile: CapabilityProfile) -> list[str]:
    return [answer.text for answer in profile.answers if answer.text is not None]
