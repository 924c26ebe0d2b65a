"""What is kept of recent prompts: bounded, least recently used out first, shared between threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from capability_encoder.recent import Recent


def test_a_value_is_made_once_while_it_is_kept() -> None:
    made: list[str] = []
    recent: Recent[str] = Recent(2)

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    for key in ("a", "b", "a", "c", "a", "b"):
        assert recent.get(key, lambda key=key: make(key)) == key.upper()  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]  # c drove out b, for a had been asked for since
    assert len(recent) == 2


def test_a_failure_is_not_kept() -> None:
    recent: Recent[int] = Recent(2)

    def fail() -> int:
        raise ValueError("no")

    for _ in range(2):
        try:
            recent.get("a", fail)
        except ValueError:
            continue
        raise AssertionError("the failure was swallowed")
    assert recent.get("a", lambda: 1) == 1


def test_threads_share_it_within_its_bound() -> None:
    recent: Recent[int] = Recent(8)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: recent.get(n % 20, lambda: n % 20), range(4_000)))
    assert found == [n % 20 for n in range(4_000)]
    assert len(recent) <= 8
