"""Shadow, live, rollback: one call each, and a bad artefact never becomes either."""

from pathlib import Path

import numpy as np
import pytest

from capability_encoder.artifact import ArtifactError, Manifest, write_artifact
from capability_encoder.versions import SHIPPED_NAME, VersionStore


def make(folder: Path, seed: int) -> Path:
    manifest = Manifest(kind="capability-scorer", embedder="e1", files={}, seed=seed)
    return write_artifact(folder, manifest, arrays={"w": {"w": np.array([seed])}}).folder


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "state", make(tmp_path / "shipped", 0))


def test_the_shipped_artefact_is_live_at_first(store: VersionStore, tmp_path: Path) -> None:
    assert store.live() == tmp_path / "shipped"
    assert store.shadow() is None
    assert not (tmp_path / "state").exists()


def test_a_staged_version_is_a_shadow_and_changes_nothing_live(store: VersionStore, tmp_path: Path) -> None:
    version = store.stage(make(tmp_path / "new", 1), embedder="e1")
    assert store.live() == tmp_path / "shipped"
    assert store.shadow() == store.folder(version)


def test_promote_then_rollback_returns_to_where_it_was(store: VersionStore, tmp_path: Path) -> None:
    first = store.stage(make(tmp_path / "one", 1))
    assert store.promote() == first
    second = store.stage(make(tmp_path / "two", 2))
    assert store.promote() == second
    assert store.rollback() == first
    assert store.state().shadow == second
    assert store.rollback() == SHIPPED_NAME
    assert store.live() == tmp_path / "shipped"


def test_the_copy_survives_the_removal_of_the_source(store: VersionStore, tmp_path: Path) -> None:
    source = make(tmp_path / "one", 1)
    store.stage(source)
    (source / "manifest.json").unlink()
    store.promote()
    assert (store.live() / "manifest.json").is_file()


def test_another_process_sees_the_change(store: VersionStore, tmp_path: Path) -> None:
    other = VersionStore(tmp_path / "state", tmp_path / "shipped")
    before = other.stamp()
    version = store.stage(make(tmp_path / "one", 1))
    store.promote()
    assert other.state().live == version
    assert other.stamp() != before


def test_a_bad_artefact_is_refused_and_nothing_changes(store: VersionStore, tmp_path: Path) -> None:
    bad = make(tmp_path / "bad", 1)
    (bad / "w.npz").write_bytes(b"damaged")
    before = store.state()
    with pytest.raises(ArtifactError, match="corrupt"):
        store.stage(bad)
    with pytest.raises(ArtifactError, match="embedder"):
        store.stage(make(tmp_path / "other", 2), embedder="e2")
    assert store.state() == before


def test_what_is_impossible_is_said(store: VersionStore) -> None:
    with pytest.raises(ArtifactError, match="no shadow version to promote"):
        store.promote()
    with pytest.raises(ArtifactError, match="no earlier version"):
        store.rollback()


def test_a_damaged_record_is_named(store: VersionStore, tmp_path: Path) -> None:
    store.stage(make(tmp_path / "one", 1))
    (tmp_path / "state" / "encoder" / "versions.json").write_text("{")
    with pytest.raises(ArtifactError, match="delete it to go back to the shipped artefact"):
        store.live()


def test_versions_nobody_refers_to_are_removed(store: VersionStore, tmp_path: Path) -> None:
    for seed in range(1, 10):
        store.stage(make(tmp_path / "next", seed))
        store.promote()
    kept = {folder.name for folder in (tmp_path / "state" / "encoder" / "versions").iterdir()}
    state = store.state()
    assert kept == {state.live, *state.history}
    assert len(state.history) == 5
