"""One contract over all bundled tasks: any seed gives 20 different items that their own scorer can grade."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from aptitude_tests.build import build_suite
from aptitude_tests.generators import GENERATORS
from aptitude_tests.item import DIFFICULTIES, LANGUAGES, SHOTS, Item, Reply, Suite
from aptitude_tests.render import render_text
from aptitude_tests.scorers import SCORERS, score

SEEDS = (0, 20261121)
MAX_CHARS = 20_000
TASKS = [task.name for task in build_suite(shots=1).tasks]


@cache
def suite(seed: int) -> Suite:
    """Built once for all tests of the module."""
    return build_suite(seed=seed)


def items_of(task: str) -> list[Item]:
    """The items of a task over all seeds of the contract."""
    return [item for seed in SEEDS for item in suite(seed).items_of(task)]


def test_the_suite_has_fifty_tasks_of_twenty_shots_over_languages_domains_and_modalities() -> None:
    built = suite(0)
    assert (len(built.tasks), len(built.items)) == (50, 50 * SHOTS)
    assert set(built.count_by("language")) == set(LANGUAGES)
    assert min(built.count_by("language").values()) >= 4
    assert len(built.count_by("domain")) >= 12
    assert built.count_by("modality")["image"] >= 3


def test_ids_and_hashes_are_unique_over_the_suite_and_between_forms() -> None:
    items = [item for seed in SEEDS for item in suite(seed).items]
    assert len({item.id for item in items}) == len(items)
    shared = {item.hash for item in suite(SEEDS[0]).items} & {item.hash for item in suite(SEEDS[1]).items}
    assert all(len({item.hash for item in suite(seed).items}) == 50 * SHOTS for seed in SEEDS)
    assert len(shared) < 0.02 * 50 * SHOTS


def test_the_same_seed_gives_the_same_items() -> None:
    assert build_suite(seed=SEEDS[1]).hash == suite(SEEDS[1]).hash
    assert suite(SEEDS[0]).hash != suite(SEEDS[1]).hash


def test_fewer_shots_are_the_first_ones() -> None:
    few = build_suite(shots=4)
    assert [item.hash for item in few.items] == [item.hash for item in suite(0).items if item.shot < 4]


@pytest.mark.parametrize("task", TASKS)
def test_items_are_different_bounded_and_spread_over_difficulties(task: str) -> None:
    for seed in SEEDS:
        items = suite(seed).items_of(task)
        assert [item.shot for item in items] == list(range(SHOTS))
        assert len({render_text(item) + "".join(p.digest for p in item.images) for item in items}) == SHOTS
        assert min(Counter(item.difficulty for item in items)[level] for level in DIFFICULTIES) >= 6
        assert all(10 < len(render_text(item)) <= MAX_CHARS for item in items)
        assert all(len(set(item.options)) == len(item.options) for item in items)


@pytest.mark.parametrize("task", TASKS)
def test_gold_answers_are_right_and_wrong_ones_are_wrong(task: str) -> None:
    items = items_of(task)
    scorer = SCORERS.get(items[0].scorer)
    for item in items[:3] + items[SHOTS : SHOTS + 3] if scorer.blocks else items:
        right, wrong = score(item, scorer.right(item)), score(item, scorer.wrong(item))
        assert right.score == 1.0, (item.id, right)
        assert wrong.score == 0.0, (item.id, wrong)


@pytest.mark.parametrize("task", TASKS)
def test_an_empty_reply_and_a_refusal_are_no_answers(task: str) -> None:
    item = suite(0).items_of(task)[0]
    for reply, reason in ((Reply(" \n"), "empty"), (Reply("I'm sorry, but I can't help with that."), "refused")):
        verdict = score(item, reply)
        assert (verdict.score, verdict.extracted, verdict.reason) == (None, None, reason), item.id


@pytest.mark.parametrize("task", [name for name in TASKS if not name.startswith(("en-picture", "en-format"))])
def test_the_gold_answer_of_one_item_is_not_right_for_most_others(task: str) -> None:
    items = suite(0).items_of(task)
    scorer = SCORERS.get(items[0].scorer)
    if scorer.blocks or scorer.name == "constraints":
        items = items[:4]
    answer = scorer.right(items[0])
    assert sum(score(item, answer).score == 1.0 for item in items[1:]) <= 0.7 * len(items)


def test_every_generator_is_used_and_makes_what_its_scorer_expects() -> None:
    used = {task.generator for task in suite(0).tasks}
    assert used == {entry.name for entry in GENERATORS}


def test_gold_letters_are_spread_over_the_options() -> None:
    golds = Counter(item.gold for item in suite(0).items if item.scorer == "choice")
    assert max(golds.values()) < 0.5 * sum(golds.values())
