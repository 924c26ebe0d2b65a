"""The cache of merges: bytes, pins, one build for many callers, failures, the disk."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch")

from merge_backends.cache import MergeCache  # noqa: E402
from merge_backends.disk_tier import DiskTier  # noqa: E402
from merge_backends.errors import CheckpointError, MemoryBudgetError  # noqa: E402


def cache(budget=100, **given):
    return MergeCache(budget, len, **given)


def test_the_least_recently_used_goes_first():
    kept = cache(100)
    for key in ("a", "b", "a", "c"):
        with kept.use(key, lambda: b"x" * 40):
            pass
    assert "a" in kept
    assert "b" not in kept
    assert (kept.figures.hits, kept.figures.evictions, kept.figures.nbytes) == (1, 1, 80)


def test_what_is_in_use_is_never_evicted():
    kept = cache(100)
    with kept.use("a", lambda: b"x" * 60):
        with pytest.raises(MemoryBudgetError, match="in use"), kept.use("b", lambda: b"x" * 60, expected=60):
            pass
        assert "a" in kept
    with kept.use("b", lambda: b"x" * 60, expected=60):
        assert "a" not in kept


def test_a_merge_over_the_budget_is_refused_before_it_is_built():
    def never():
        raise AssertionError("built")

    with pytest.raises(MemoryBudgetError), cache(100).use("a", never, expected=101):
        pass


def test_many_callers_wait_for_one_build():
    kept, started, builds = cache(), threading.Barrier(8), []

    def make():
        builds.append(1)
        threading.Event().wait(0.05)
        return b"x"

    def ask():
        started.wait()
        with kept.use("a", make) as value:
            assert value == b"x"

    threads = [threading.Thread(target=ask) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert builds == [1]


def test_a_failure_is_remembered_for_a_while():
    now, tries = [0.0], []

    def fails():
        tries.append(1)
        raise CheckpointError("broken")

    kept = cache(clock=lambda: now[0], remember_failure_s=30)
    for moment, expected in ((0.0, 1), (29.0, 1), (31.0, 2)):
        now[0] = moment
        with pytest.raises(CheckpointError), kept.use("a", fails):
            pass
        assert len(tries) == expected


def test_what_left_the_memory_is_read_from_disk(tmp_path):
    value = {"w": torch.arange(10.0)}
    builds = []

    def make():
        builds.append(1)
        return value

    for _ in range(2):
        kept = MergeCache(1000, lambda found: 40, disk=DiskTier(tmp_path, 10_000))
        with kept.use("sha256:a", make) as found:
            assert torch.equal(found["w"], value["w"])
    assert builds == [1]
    assert kept.figures.loads == 1


def test_the_disk_keeps_to_its_budget(tmp_path):
    import os

    tier = DiskTier(tmp_path, 2500)
    for number in range(3):
        tier.save(f"k{number}", {"w": torch.zeros(250)})
        if (tmp_path / f"k{number}").exists():
            os.utime(tmp_path / f"k{number}", (number, number))
    assert tier.load("k0") is None
    assert tier.load("k2") is not None


def test_a_broken_value_on_disk_is_built_again(tmp_path):
    tier = DiskTier(tmp_path, 10_000)
    tier.save("k", {"w": torch.zeros(10)})
    (tmp_path / "k" / "model.safetensors").write_bytes(b"cut")
    assert tier.load("k") is None
    assert not (tmp_path / "k").exists()
