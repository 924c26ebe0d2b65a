"""Nearest prompts and models are found, exactly or nearly, and indexes change without disturbing readers."""

import numpy as np
import numpy.typing as npt
import pytest

from capability_encoder.memory import Live, MemorySettings, OutcomeMemory, TokenIndex

CPU = {"gpu": False}


def unit_vectors(count: int, dimension: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dimension))
    vectors = centres[rng.integers(20, size=count)] + 0.4 * rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_flat_search_agrees_with_brute_force(storage: str) -> None:
    vectors = unit_vectors(500)
    memory = OutcomeMemory.build(vectors, MemorySettings("flat", storage, **CPU))  # type: ignore[arg-type]
    found = memory.search(vectors[:10], 5)
    products = vectors[:10] @ vectors.T
    # 8 bits per dimension move a cosine by about 0.01.
    np.testing.assert_allclose(found.similarity, -np.sort(-products, axis=1)[:, :5], atol=0.03)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(10))


def test_inverted_lists_find_nearly_all_neighbours() -> None:
    vectors = unit_vectors(4_000)
    exact = OutcomeMemory.build(vectors, MemorySettings("flat", **CPU)).search(vectors[:50], 20).rows
    near = OutcomeMemory.build(vectors, MemorySettings("ivf", lists=64, probes=16, **CPU)).search(vectors[:50], 20).rows
    recall = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(exact.tolist(), near.tolist(), strict=True)])
    assert recall >= 0.95


def test_the_same_seed_builds_the_same_index() -> None:
    vectors = unit_vectors(2_000)
    settings = MemorySettings("ivf", lists=32, probes=4, seed=3, **CPU)
    first, second = (OutcomeMemory.build(vectors, settings).search(vectors[:20], 10) for _ in range(2))
    np.testing.assert_array_equal(first.rows, second.rows)


def test_fewer_rows_than_asked_are_padded() -> None:
    found = OutcomeMemory.build(unit_vectors(2), MemorySettings(**CPU)).search(unit_vectors(1), 4)
    assert found.rows[0, 2:].tolist() == [-1, -1]
    assert found.similarity[0, 2:].tolist() == [-1.0, -1.0]


def test_an_empty_memory_answers() -> None:
    memory = OutcomeMemory.build(np.zeros((0, 16), dtype=np.float32), MemorySettings(**CPU))
    assert len(memory) == 0
    assert memory.search(unit_vectors(1), 3).rows.tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_appended_rows_are_found_before_and_after_a_rebuild(kind: str) -> None:
    old, new = unit_vectors(800), unit_vectors(3, seed=9)
    before = OutcomeMemory.build(old, MemorySettings(kind, lists=8, probes=8, **CPU))  # type: ignore[arg-type]
    after = before.appended(new)
    rebuilt = after.rebuilt()
    assert (len(before), len(after), len(rebuilt)) == (800, 803, 803)
    for memory in (after, rebuilt):
        assert memory.search(new, 1).rows.tolist() == [[800], [801], [802]]


def test_the_token_index_gives_the_largest_inner_products() -> None:
    tokens = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=np.float32)
    index = TokenIndex(["a", "b", "c"], tokens)
    assert index.search(np.array([1.0, 0.25], dtype=np.float32), 2) == [("c", 1.25), ("a", 1.0)]


def test_replacing_a_token_leaves_the_old_index_valid() -> None:
    index = TokenIndex(["a", "b"], np.eye(2, dtype=np.float32))
    other = index.replaced("b", np.array([5.0, 0.0], dtype=np.float32)).replaced("a", None)
    query = np.array([1.0, 0.0], dtype=np.float32)
    assert other.search(query, 5) == [("b", 5.0)]
    assert index.search(query, 1) == [("a", 1.0)]


def test_tokens_and_names_must_match() -> None:
    with pytest.raises(ValueError, match="2 names for 1 tokens"):
        TokenIndex(["a", "b"], np.ones((1, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="same model name"):
        TokenIndex(["a", "a"], np.ones((2, 2), dtype=np.float32))


def test_a_swap_gives_back_the_old_value() -> None:
    live = Live("old")
    assert live.swap("new") == "old"
    assert live.get() == "new"
