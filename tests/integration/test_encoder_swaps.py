"""Artefacts come and go while the gateway runs: what is retired leaves the memory, what is shared is opened once."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

from capability_encoder.artifact import SHIPPED
from capability_encoder.embed import PromptEmbedder
from capability_encoder.scorer import KIND
from gateway.encoder.loaded import version_store
from gateway.encoder.scorer import EncoderScorer
from tests.support.routing import candidate

POOL = [candidate("small"), candidate("large")]


def other_version(folder: Path) -> Path:
    """The shipped weights under another version, which is a hash over the manifest."""
    shutil.copytree(SHIPPED, folder)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "seed": 1}))
    return folder


def test_a_text_encoder_goes_without_a_garbage_collection() -> None:
    encoder = PromptEmbedder.load()
    assert encoder.embed_one("Whot is the capitol of France?").any(), "the caches are in use"
    gone = weakref.ref(encoder)
    gc.disable()
    try:
        del encoder
        assert gone() is None, "a cycle keeps it: collections are rare, and walk the whole heap when they come"
    finally:
        gc.enable()


async def test_a_retired_scorer_is_freed_and_the_text_encoder_is_shared(tmp_path: Path) -> None:
    encoder = EncoderScorer(tmp_path / "state", None, dict)
    store = version_store(tmp_path / "state", None)
    other = other_version(tmp_path / "other")
    gc.disable()
    try:
        first = await encoder.score("Hello", POOL)
        assert encoder.loaded is not None
        live = encoder.loaded.scorer
        text_encoder, retired = live.embedder.base, weakref.ref(live)
        store.stage(other, kind=KIND)
        await encoder.reload()
        assert encoder.loaded.shadow is not None
        assert encoder.loaded.shadow.embedder.base is text_encoder
        store.promote()
        await encoder.reload()
        second = await encoder.score("Hello", POOL)
        assert second.version != first.version
        assert second.scores["small"].p == first.scores["small"].p
        del live
        assert retired() is None, "nothing may hold a scorer that neither decides nor is on trial"
        store.rollback()
        await encoder.reload()
        assert (await encoder.score("Hello again", POOL)).version == first.version
    finally:
        gc.enable()
        await encoder.close()
