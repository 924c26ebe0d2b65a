"""`auto`: constraints first, then utility, sessions, abstention; every choice explained by the decision alone."""

import pytest

from gateway.errors import RoutingError
from gateway.registry.records import ClientKey, Endpoint
from gateway.routing.decision import RoutingDecision
from gateway.routing.vitals import Vitals
from gateway.routing.wishes import Wishes
from tests.support.routing import Bench, FixedHealth, FixedScorer, candidate

SMALL = candidate("small", price_in=0.1, price_out=0.4, context_window=8_000)
LARGE = candidate("large", price_in=5.0, price_out=15.0, context_window=128_000, can=["vision", "tools"])
P = {"small": 0.6, "large": 0.9}


def turn(*messages: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


async def test_at_quality_one_the_best_answer_wins_at_any_price() -> None:
    decision = await Bench(FixedScorer(P)).auto([SMALL, LARGE], wishes=Wishes(quality=1.0))
    assert (decision.model, decision.rule, decision.order) == ("large", "utility", ("large", "small"))


async def test_at_quality_zero_the_cheapest_wins() -> None:
    decision = await Bench(FixedScorer(P)).auto([SMALL, LARGE], wishes=Wishes(quality=0.0))
    assert decision.model == "small"


async def test_a_model_of_which_nothing_was_measured_does_not_outbid_one_that_was() -> None:
    guessed = Bench(FixedScorer({"small": 0.85, "large": 0.9}, unmeasured=["large"]))
    decision = await guessed.auto([SMALL, LARGE], wishes=Wishes(quality=1.0))
    assert decision.model == "small"
    nobody = Bench(FixedScorer({"small": 0.85, "large": 0.9}, unmeasured=["small", "large"]))
    assert (await nobody.auto([SMALL, LARGE], wishes=Wishes(quality=1.0))).model == "large"


async def test_a_dearer_model_that_is_never_chosen_changes_no_choice() -> None:
    dear = candidate("dear", price_in=500.0, price_out=1500.0)
    bench = Bench(FixedScorer({**P, "dear": 0.5}))
    for quality in (0.0, 0.3, 0.5, 0.7, 0.9):
        without = await bench.auto([SMALL, LARGE], wishes=Wishes(quality=quality))
        assert (await bench.auto([SMALL, LARGE, dear], wishes=Wishes(quality=quality))).model == without.model


async def test_vision_is_a_hard_constraint() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}
    decision = await Bench(FixedScorer({"small": 1.0, "large": 0.1})).auto([SMALL, LARGE], body)
    assert decision.model == "large"
    assert decision.rule == "only_one"
    excluded = next(item for item in decision.candidates if item.model == "small")
    assert excluded.excluded_because == "vision: needs vision, which is not declared"


async def test_a_prompt_that_fits_no_window_is_refused_with_the_openai_code() -> None:
    with pytest.raises(RoutingError) as caught:
        await Bench(FixedScorer(P)).auto([SMALL], turn(("user", "word " * 10_000)))
    assert (caught.value.code, caught.value.status) == ("context_length_exceeded", 400)
    assert "'context'" in caught.value.message


async def test_the_answer_must_fit_the_window_too() -> None:
    body = {**turn(("user", "hi")), "max_tokens": 9_000}
    assert (await Bench(FixedScorer(P)).auto([SMALL, LARGE], body, wishes=Wishes(quality=0.0))).model == "large"


@pytest.mark.parametrize(
    ("wishes", "rule"),
    [
        (Wishes(allow=frozenset({"nobody"})), "allow"),
        (Wishes(deny=frozenset({"small", "large"})), "deny"),
        (Wishes(max_cost_usd=0.0), "max_cost_usd"),
        (Wishes(min_p=0.99), "min_p"),
    ],
    ids=["allow", "deny", "max_cost_usd", "min_p"],
)
async def test_an_empty_set_names_the_rule_that_emptied_it(wishes: Wishes, rule: str) -> None:
    with pytest.raises(RoutingError) as caught:
        await Bench(FixedScorer(P)).auto([SMALL, LARGE], wishes=wishes)
    assert f"rule {rule!r}" in caught.value.message
    assert caught.value.status == 400
    assert caught.value.hint
    assert caught.value.param == f"orbweaver.{rule}"


async def test_an_allow_list_with_an_unknown_name_says_which() -> None:
    with pytest.raises(RoutingError, match="Not registered: 'nobody'"):
        await Bench(FixedScorer(P)).auto([SMALL], wishes=Wishes(allow=frozenset({"nobody"})))


async def test_all_down_is_a_503_that_says_so() -> None:
    bench = Bench(FixedScorer(P), health=FixedHealth(down=["small", "large"]))
    with pytest.raises(RoutingError) as caught:
        await bench.auto([SMALL, LARGE])
    assert caught.value.status == 503


async def test_nothing_registered_says_how_to_add_the_first_model() -> None:
    with pytest.raises(RoutingError, match="none is registered") as caught:
        await Bench(FixedScorer({})).auto([])
    assert "orbweaver models add" in (caught.value.hint or "")


async def test_a_key_limited_to_models_sees_only_those() -> None:
    key = ClientKey("k", "k", "hash", "ow-", models=frozenset({"small"}))
    assert (await Bench(FixedScorer(P)).auto([SMALL, LARGE], key=key)).model == "small"


async def test_only_candidates_that_serve_the_endpoint_take_part() -> None:
    embedder = candidate("embedder", endpoints=frozenset({Endpoint.EMBEDDINGS}))
    bench = Bench(FixedScorer({**P, "embedder": 0.1}))
    assert (await bench.auto([SMALL, embedder], {"input": "x"}, endpoint=Endpoint.EMBEDDINGS)).model == "embedder"


async def test_a_session_stays_unless_the_gain_pays_for_the_switch() -> None:
    bench = Bench(FixedScorer({"small": 0.60, "large": 0.61}), switch_price=0.02)
    talk = turn(("user", "hi"), ("assistant", "hello"), ("user", "and?"))
    first = await bench.auto([SMALL, LARGE], turn(("user", "hi")))
    await bench.router.observe(first, "small")
    kept = await bench.auto([SMALL, LARGE], talk)
    assert (kept.model, kept.rule) == ("small", "session")
    bench.router.scorer = FixedScorer({"small": 0.60, "large": 0.70})
    moved = await bench.auto([SMALL, LARGE], talk)
    assert (moved.model, moved.rule) == ("large", "utility")


async def test_a_session_fails_over_when_its_model_is_down() -> None:
    bench = Bench(FixedScorer({"small": 0.60, "large": 0.61}))
    talk = turn(("user", "hi"), ("assistant", "hello"), ("user", "and?"))
    await bench.router.observe(await bench.auto([SMALL, LARGE], talk), "small")
    bench.health.down.add("small")
    assert (await bench.auto([SMALL, LARGE], talk)).model == "large"


async def test_a_tool_loop_keeps_the_model_that_made_the_call() -> None:
    able = [candidate("small", can=["tools"]), candidate("large", can=["tools"])]
    bench = Bench(FixedScorer({"small": 0.1, "large": 0.9}))
    ask = {**turn(("user", "weather?")), "tools": [{"type": "function"}]}
    await bench.router.observe(await bench.auto(able, ask), "small")
    loop = {**turn(("user", "weather?"), ("assistant", ""), ("tool", "rain")), "tools": [{"type": "function"}]}
    decision = await bench.auto(able, loop)
    assert (decision.model, decision.rule) == ("small", "tool_loop")


async def test_two_tenants_with_the_same_words_do_not_share_a_session() -> None:
    bench = Bench(FixedScorer({"small": 0.60, "large": 0.61}))
    talk = turn(("user", "hi"), ("assistant", "hello"), ("user", "and?"))
    one, two = (ClientKey(name, name, name, "ow-") for name in ("one", "two"))
    await bench.router.observe(await bench.auto([SMALL, LARGE], talk, key=one), "small")
    assert (await bench.auto([SMALL, LARGE], talk, key=one)).model == "small"
    assert (await bench.auto([SMALL, LARGE], talk, key=two)).model == "large"


async def test_a_session_is_forgotten_after_its_time() -> None:
    bench = Bench(FixedScorer({"small": 0.60, "large": 0.61}))
    wishes = Wishes(session="mine")
    await bench.router.observe(await bench.auto([SMALL, LARGE], wishes=wishes), "small")
    assert (await bench.auto([SMALL, LARGE], wishes=wishes)).rule == "session"
    bench.now += 1801
    assert (await bench.auto([SMALL, LARGE], wishes=wishes)).rule == "utility"


async def test_a_novel_prompt_goes_to_the_default() -> None:
    bench = Bench(FixedScorer(P, novelty=0.99), default="small")
    decision = await bench.auto([SMALL, LARGE])
    assert (decision.model, decision.rule) == ("small", "abstain")


async def test_a_prior_never_abstains() -> None:
    bench = Bench(FixedScorer(P, novelty=0.99, is_prior=True), default="small")
    assert (await bench.auto([SMALL, LARGE])).model == "large"


async def test_fast_prefers_the_quicker_model() -> None:
    health = FixedHealth(
        vitals={"small": Vitals(ttft_s=0.2, tokens_per_s=200), "large": Vitals(ttft_s=3, tokens_per_s=30)}
    )
    bench = Bench(FixedScorer(P), health=health)
    assert (await bench.auto([SMALL, LARGE], wishes=Wishes(fast=True))).model == "small"
    assert (await bench.auto([SMALL, LARGE])).model == "large"


async def test_exploration_is_off_by_default_and_logs_its_propensity_when_on() -> None:
    quiet = Bench(FixedScorer(P))
    assert all([(await quiet.auto([SMALL, LARGE])).propensity == 1.0 for _ in range(20)])
    bold = Bench(FixedScorer(P), explore=0.2)
    decisions = [await bold.auto([SMALL, LARGE]) for _ in range(400)]
    drawn = [item for item in decisions if item.model == "small"]
    assert 20 <= len(drawn) <= 65
    assert {round(item.propensity, 3) for item in drawn} == {0.1}
    assert {round(item.propensity, 3) for item in decisions if item.model == "large"} == {0.9}


async def test_the_decision_holds_no_text_and_survives_json() -> None:
    decision = await Bench(FixedScorer(P)).auto([SMALL, LARGE], turn(("user", "my secret plan")))
    assert RoutingDecision.from_json(decision.to_json()) == decision
    assert "secret plan" not in repr(decision)


async def test_a_named_model_is_never_replaced() -> None:
    decision = Bench(FixedScorer(P)).router.named("small", SMALL, Wishes())
    assert (decision.order, decision.rule, decision.candidates) == (("small",), "named", ())


async def test_unpriced_models_count_as_the_dearest() -> None:
    unknown = candidate("unknown")
    bench = Bench(FixedScorer({"small": 0.6, "large": 0.6, "unknown": 0.6}))
    decision = await bench.auto([unknown, LARGE, SMALL], wishes=Wishes(quality=0.5))
    assert decision.model == "small"
    utilities = {item.model: item.utility for item in decision.candidates}
    assert utilities["unknown"] == pytest.approx(utilities["large"])
