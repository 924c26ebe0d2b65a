"""An artefact reproduces bit for bit and refuses to load when anything about it is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from capability_encoder.artifact import Artifact, ArtifactError, Manifest, open_artifact, write_artifact

ARRAYS = {"weights": {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1, 2])}}


def write(folder: Path, seed: int = 0) -> Artifact:
    manifest = Manifest(
        kind="capability-scorer", embedder="e1", files={}, seed=seed, licences={"weights": "Apache-2.0"}
    )
    return write_artifact(folder, manifest, arrays=ARRAYS, records={"scorer": {"rank": 3}})


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "art")
    artifact = open_artifact(tmp_path / "art", kind="capability-scorer", embedder="e1")
    np.testing.assert_array_equal(artifact.arrays("weights")["b"], ARRAYS["weights"]["b"])
    assert artifact.record("scorer") == {"rank": 3}
    assert artifact.manifest.licences == {"weights": "Apache-2.0"}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "one"), write(tmp_path / "two")
    for name in ("weights.npz", "scorer.json", "manifest.json"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    assert first.version == second.version
    assert write(tmp_path / "three", seed=1).version != first.version


def test_writing_again_replaces_the_whole_folder(tmp_path: Path) -> None:
    write(tmp_path / "art")
    (tmp_path / "art" / "stray.txt").write_text("old")
    write(tmp_path / "art")
    assert sorted(path.name for path in (tmp_path / "art").iterdir()) == ["manifest.json", "scorer.json", "weights.npz"]
    assert [path.name for path in tmp_path.iterdir()] == ["art"]


def test_a_missing_artefact_is_named_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no encoder artefact at .*nowhere.*encoder train"):
        open_artifact(tmp_path / "nowhere")


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "art").folder / "weights.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"weights.npz' is corrupt"):
        open_artifact(tmp_path / "art")


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    (write(tmp_path / "art").folder / "scorer.json").unlink()
    with pytest.raises(ArtifactError, match=r"scorer.json' is missing"):
        open_artifact(tmp_path / "art")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": 99}, "artefact format 99, this version reads 1"), ({"colour": "red"}, "unexpected field")],
    ids=["format", "field"],
)
def test_another_version_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write(tmp_path / "art").folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError, match=message):
        open_artifact(tmp_path / "art")


def test_a_manifest_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (write(tmp_path / "art").folder / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        open_artifact(tmp_path / "art")


def test_another_embedder_or_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "art")
    with pytest.raises(ArtifactError, match="made with embedder 'e1', this installation has 'e2'"):
        open_artifact(tmp_path / "art", embedder="e2")
    with pytest.raises(ArtifactError, match="expected a 'task-index'"):
        open_artifact(tmp_path / "art", kind="task-index")


def test_a_file_that_the_artefact_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no 'extra.npz'"):
        write(tmp_path / "art").arrays("extra")
