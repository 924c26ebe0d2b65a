"""The running batch: what a sequence gives does not depend on who shares the batch with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from merge_backends import moe
from merge_backends.engine.causal import CausalModel, check_slots
from merge_backends.engine.lane import FILL_TOKENS, Lane, Row
from merge_backends.engine.loading import load_causal, load_tokenizer, serve_module
from merge_backends.engine.sampling import Draw, Sampling
from merge_backends.engine.transcript import Piece, Transcript
from merge_backends.errors import CheckpointError
from tests.support.engine_models import random_model, reference_greedy, save_model
from tests.support.merge_models import nearby, weights_of

KV = 2**28


@pytest.fixture(autouse=True)
def _one_thread_without_gradients() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    folder = tmp_path_factory.mktemp("models") / request.param
    return load_causal(request.param, save_model(folder, request.param, context=1024))


def row(prompt: list[int], tokens: int, *, sampling: Sampling | None = None, seed: int = 0) -> tuple[Row, list[int]]:
    taken: list[int] = []

    def take(token: int, likely: Any) -> bool:
        taken.append(token)
        return len(taken) >= tokens

    return Row(prompt, tokens, Draw(sampling or Sampling(temperature=0), random.Random(seed)), take), taken


def run(lane: Lane, arrivals: dict[int, list[Row]], *, watch: Callable[[int], None] = lambda step: None) -> None:
    """Step until all are done; `arrivals` come at their step."""
    waiting: list[Row] = []
    for step in range(10_000):
        waiting += arrivals.get(step, [])
        for each in lane.admit(waiting):
            waiting.remove(each)
        if len(lane):
            lane.step()
        watch(step)
        if not waiting and not len(lane) and step >= max(arrivals):
            return
    raise AssertionError("the lane never came to an end")


def prompts(count: int, longest: int = 90) -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(3, 259) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def test_greedy_answers_in_a_changing_batch_are_those_of_plain_forward_passes(model: CausalModel) -> None:
    rows = [row(prompt, 10 + 7 * at) for at, prompt in enumerate(prompts(6))]
    only_rows = [each for each, _ in rows]
    run(Lane(model, slots=4, kv_bytes=KV), {0: only_rows[:2], 3: only_rows[2:5], 40: only_rows[5:]})
    for each, taken in rows:
        assert taken == reference_greedy(model.module, each.prompt, len(taken))


def test_a_long_prompt_is_filled_in_pieces_beside_running_answers(model: CausalModel) -> None:
    short, short_taken = row(prompts(1)[0], 40)
    long, long_taken = row([5, 9, 7] * (FILL_TOKENS // 2), 12)
    progress: list[tuple[int, int]] = []
    run(
        Lane(model, slots=4, kv_bytes=KV),
        {0: [short], 4: [long]},
        watch=lambda step: progress.append((len(short_taken), len(long_taken))),
    )
    assert long_taken == reference_greedy(model.module, long.prompt, 12)
    assert short_taken == reference_greedy(model.module, short.prompt, 40)
    # The long prompt took its first piece in step 4, and the short answer grew in that step.
    assert progress[4] == (progress[3][0] + 1, 0)


def test_a_seed_gives_the_same_tokens_alone_and_in_company(model: CausalModel) -> None:
    def sampled(seed: int) -> tuple[Row, list[int]]:
        return row(prompts(4)[seed], 30, sampling=Sampling(temperature=0.9, top_p=0.9), seed=seed)

    company = [sampled(seed) for seed in range(4)]
    run(Lane(model, slots=4, kv_bytes=KV), {0: [each for each, _ in company]})
    for seed, (_, taken) in enumerate(company):
        alone, alone_taken = sampled(seed)
        run(Lane(model, slots=4, kv_bytes=KV), {0: [alone]})
        assert alone_taken == taken
    assert len({tuple(taken) for _, taken in company}) == 4


def test_a_cancelled_row_is_free_at_the_next_step_and_the_others_go_on(model: CausalModel) -> None:
    rows = [row(prompt, 50) for prompt in prompts(3)]
    lane = Lane(model, slots=4, kv_bytes=KV)

    def cancel(step: int) -> None:
        if step == 10:
            rows[0][0].cancelled = True
        if step == 11:
            assert len(lane) == 2

    run(lane, {0: [each for each, _ in rows]}, watch=cancel)
    assert len(rows[0][1]) < 20
    for each, taken in rows[1:]:
        assert taken == reference_greedy(model.module, each.prompt, 50)


def test_rows_wait_where_keys_and_values_would_not_fit(model: CausalModel) -> None:
    rows = [row([5, 6 + at] * 35, 30) for at in range(4)]
    budget = model.new_cache().bytes_for(2, 100)
    most = 0
    lane = Lane(model, slots=4, kv_bytes=budget)

    def watch(step: int) -> None:
        nonlocal most
        most = max(most, len(lane))

    run(lane, {0: [each for each, _ in rows]}, watch=watch)
    assert most == 2
    assert all(len(taken) == 30 for _, taken in rows)
    assert not lane.fits_ever(row([5] * 300, 600)[0])


def test_short_prompts_do_not_wait_for_a_long_one_that_came_with_them(model: CausalModel) -> None:
    short, long = row([5] * 10, 4)[0], row([5] * 700, 4)[0]
    assert Lane(model, slots=4, kv_bytes=KV).admit([short, long]) == [short]


@pytest.mark.parametrize("method", ["wemoe", "smile"])
def test_mixtures_route_each_row_by_its_own_prompt(method: str, tmp_path: Path) -> None:
    save_model(tmp_path)
    module = random_model("llama")
    base = weights_of(module)
    experts = [nearby(base, seed=seed, scale=0.2) for seed in (1, 2)]
    mixed = moe.build(method, module, base, experts, seed=3)
    with torch.no_grad():
        for name, parameter in mixed.named_parameters():
            if "router" in name:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    model = serve_module(method, mixed, load_tokenizer(tmp_path))
    rows = [row(prompt, 12) for prompt in prompts(4, 40)]
    run(Lane(model, slots=4, kv_bytes=KV), {0: [rows[0][0]], 2: [each for each, _ in rows[1:]]})
    for each, taken in rows:
        alone, alone_taken = row(each.prompt, 12)
        run(Lane(model, slots=1, kv_bytes=KV), {0: [alone]})
        assert taken == alone_taken
        ids = torch.tensor([each.prompt])
        generated = mixed.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert generated[0, len(each.prompt) :].tolist() == taken[: generated.shape[1] - len(each.prompt)]


def test_an_architecture_that_the_cache_does_not_fit_is_refused(model: CausalModel, tmp_path: Path) -> None:
    wrong = CausalModel(**{name: getattr(model, name) for name in CausalModel.__slots__})
    wrong.module = _Forgetful(model.module)
    with pytest.raises(CheckpointError, match="does not give the answers"):
        check_slots(wrong)


class _Forgetful(torch.nn.Module):
    """Ignores the positions that it is given, as a model with positions of its own would."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.config = module.config

    def forward(self, **given: Any) -> Any:
        if given.get("position_ids") is not None:
            given["position_ids"] = torch.zeros_like(given["position_ids"])
        return self.module(**given)


def test_a_transcript_ends_at_the_end_token_and_counts_it(model: CausalModel) -> None:
    pieces: list[Piece] = []
    transcript = Transcript(0, model.vocabulary, pieces.append, ends=frozenset({0}), stops=(), limit=50)
    for token in [*model.vocabulary.encode("héé", special=False), 0]:
        ended = transcript.take(token, None)
    assert ended
    assert "".join(piece.text for piece in pieces) == "héé"
    assert (pieces[-1].finish, pieces[-1].tokens) == ("stop", 6)


def test_a_transcript_drops_the_log_probabilities_of_a_stop_string(model: CausalModel) -> None:
    from merge_backends.engine.sampling import Likely

    pieces: list[Piece] = []
    transcript = Transcript(0, model.vocabulary, pieces.append, ends=frozenset(), stops=("cd",), limit=50)
    taken = [transcript.take(token, Likely(-1.0, ())) for token in model.vocabulary.encode("abcde", special=False)[:4]]
    assert taken == [False, False, False, True]
    assert "".join(piece.text for piece in pieces) == "ab"
    assert [each.token for piece in pieces for each in piece.logprobs] == [b"a", b"b"]
