"""The engine's wire format through the official client and raw HTTP: answers, streams, errors, cancellation."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
import transformers
from openai import AsyncOpenAI, OpenAI

from tests.support.engine_models import CONTEXT, END, save_model, save_tokenizer
from tests.support.engine_process import EngineProcess, engine_process

ASK: list[Any] = [{"role": "user", "content": "Say something."}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    place = tmp_path_factory.mktemp("models")
    models = {
        "llama": save_model(place / "llama"),
        "gpt2": save_model(place / "gpt2", "gpt2", context=1024),
        "plain": save_model(place / "plain", template=None),
        "ends": save_model(place / "ends", never_ends=False),
        "encoder": save_encoder(place / "encoder"),
    }
    experts = {name: save_model(place / name, seed=0) for name in ("a", "b")}
    for seed, folder in enumerate(experts.values()):
        nudge(folder, seed)
    settings = {
        "models": {name: str(folder) for name, folder in models.items()},
        "merges": {"kin": {"base": str(models["llama"]), "experts": {n: str(f) for n, f in experts.items()}}},
        "batch": 8,
        "queue": 8,
    }
    with engine_process(settings) as running:
        yield running


@pytest.fixture
def sdk(engine: EngineProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(engine: EngineProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=engine.url, timeout=30) as client:
        yield client


def save_encoder(folder: Path) -> Path:
    size = save_tokenizer(folder, template=None)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def nudge(folder: Path, seed: int) -> None:
    """An expert: the base's weights plus some noise."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)


def events(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "llama", "messages": ASK, "max_tokens": 12, "seed": 1, **fields}


# --- whole answers


def test_a_whole_answer_has_openais_shape(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(**chat())
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "llama")
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert (answer.system_fingerprint or "").startswith("fp_")


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(sdk: OpenAI) -> None:
    first, again, other = (
        sdk.chat.completions.create(**chat(max_tokens=30, seed=seed)).choices[0].message.content for seed in (5, 5, 6)
    )
    assert first == again != other


def test_several_choices_differ_and_come_in_order(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(**chat(n=3, max_tokens=20))
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 60


def test_log_probabilities_come_with_bytes_and_the_most_probable_tokens(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(**chat(logprobs=True, top_logprobs=2, temperature=0))
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 12
    for each in logprobs.content:
        assert len(each.top_logprobs) == 2
        assert each.logprob == pytest.approx(each.top_logprobs[0].logprob)
        assert each.logprob <= 0
        assert each.bytes


def test_a_stop_string_ends_the_answer_before_it(sdk: OpenAI) -> None:
    whole = sdk.chat.completions.create(**chat(max_tokens=60)).choices[0].message.content
    assert whole is not None
    middle = len(whole) // 2
    stop = whole[middle : middle + 3]
    answer = sdk.chat.completions.create(**chat(max_tokens=60, stop=stop)).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.message.content == whole[: whole.index(stop)]


def test_an_end_token_ends_the_answer(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(**chat(model="ends", logit_bias={"0": 100}))
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == ""
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


def test_an_answer_goes_on_to_the_end_of_the_context_where_no_limit_is_given(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(model="llama", messages=ASK, temperature=0)
    assert answer.usage is not None
    assert answer.usage.total_tokens == CONTEXT
    assert answer.choices[0].finish_reason == "length"


def test_a_model_without_a_template_is_asked_by_role(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(**chat(model="plain"))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("User: Say something.\nAssistant:")


def test_completions_continue_texts_and_tokens(sdk: OpenAI) -> None:
    by_text = sdk.completions.create(model="gpt2", prompt=["ab", "cd"], max_tokens=8, temperature=0)
    tokens = [random_token_ids("ab"), random_token_ids("cd")]
    by_token = sdk.completions.create(model="gpt2", prompt=tokens, max_tokens=8, temperature=0)
    assert [choice.text for choice in by_text.choices] == [choice.text for choice in by_token.choices]
    assert by_text.usage is not None
    assert by_text.usage.prompt_tokens == 4
    assert by_text.id.startswith("cmpl-")


def random_token_ids(text: str) -> list[int]:
    """Tokens of plain letters in the test tokenizer."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [3 + letters.index(letter) for letter in text]


def test_completions_report_log_probabilities_in_their_own_shape(sdk: OpenAI) -> None:
    answer = sdk.completions.create(model="gpt2", prompt="ab", max_tokens=5, logprobs=2, seed=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs.tokens or []) == len(logprobs.token_logprobs or []) == 5
    assert (logprobs.text_offset or [1])[0] == 0


# --- streams


@pytest.mark.parametrize("stop", [None, "a"])
def test_a_stream_adds_up_to_the_whole_answer(sdk: OpenAI, stop: str | None) -> None:
    fields = chat(max_tokens=80, seed=11, stop=stop)
    whole = sdk.chat.completions.create(**fields)
    chunks = list(sdk.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert ends == [whole.choices[0].finish_reason]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({(c.id, c.created, c.model, c.system_fingerprint) for c in chunks}) == 1


def test_a_stream_is_server_sent_events_with_one_end(http: httpx.Client) -> None:
    reply = http.post("/v1/chat/completions", json=chat(stream=True))
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text.endswith("data: [DONE]\n\n")
    assert reply.text.count("[DONE]") == 1
    read = events(reply.text)
    assert {each["object"] for each in read} == {"chat.completion.chunk"}
    assert all("usage" not in each for each in read)
    assert read[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}


def test_a_stream_of_several_choices_keeps_them_apart(sdk: OpenAI) -> None:
    fields = chat(n=2, max_tokens=25)
    whole = sdk.chat.completions.create(**fields)
    texts = {0: "", 1: ""}
    for chunk in sdk.chat.completions.create(**fields, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert [texts[0], texts[1]] == [choice.message.content for choice in whole.choices]


def test_streamed_log_probabilities_are_those_of_the_whole_answer(sdk: OpenAI) -> None:
    fields = chat(logprobs=True, max_tokens=20)
    whole = sdk.chat.completions.create(**fields).choices[0].logprobs
    streamed = [
        each
        for chunk in sdk.chat.completions.create(**fields, stream=True)
        if chunk.choices and chunk.choices[0].logprobs
        for each in chunk.choices[0].logprobs.content or []
    ]
    assert whole is not None
    assert [each.bytes for each in streamed] == [each.bytes for each in whole.content or []]


def test_the_clients_stream_helper_reads_it(sdk: OpenAI) -> None:
    text = sdk.chat.completions.create(**chat(max_tokens=40)).choices[0].message.content or ""
    with sdk.chat.completions.stream(**chat(max_tokens=40, stop=text[20:23])) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"
    assert text.startswith(final.choices[0].message.content or "nothing")


def test_completions_stream_too(http: httpx.Client) -> None:
    body = {"model": "gpt2", "prompt": "ab", "max_tokens": 9, "seed": 1}
    whole = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    read = events(http.post("/v1/completions", json={**body, "stream": True}).text)
    assert "".join(each["choices"][0]["text"] for each in read) == whole
    assert {each["object"] for each in read} == {"text_completion"}


# --- many at once


async def test_answers_in_company_are_those_given_alone(engine: EngineProcess) -> None:
    async with AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:

        async def ask(at: int) -> str | None:
            message: Any = {"role": "user", "content": "x" * (1 + 5 * at)}
            answer = await client.chat.completions.create(
                model="llama", messages=[message], max_tokens=20 + at, temperature=0 if at % 2 else 1, seed=at
            )
            return answer.choices[0].message.content

        alone = [await ask(at) for at in range(8)]
        assert await asyncio.gather(*(ask(at) for at in range(8))) == alone


async def test_a_client_that_leaves_a_stream_frees_its_place(engine: EngineProcess) -> None:
    async with httpx.AsyncClient(base_url=engine.url, timeout=30) as client:
        body = {"model": "gpt2", "messages": ASK, "stream": True, "temperature": 0, "n": 8}
        for _ in range(20):  # on a busy machine an answer may be over before we look
            async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
                await anext(reply.aiter_bytes())
                running = (await asyncio.to_thread(engine.health))["running"]
            if running:
                break
        assert running == 8
    assert await asyncio.to_thread(engine.wait_until_idle, 2.0) < 2.0


async def test_a_client_that_leaves_while_it_waits_frees_its_place(engine: EngineProcess) -> None:
    async with httpx.AsyncClient(base_url=engine.url, timeout=30) as client:
        waiting = asyncio.create_task(
            client.post("/v1/chat/completions", json={"model": "gpt2", "messages": ASK, "temperature": 0})
        )
        while not (await asyncio.to_thread(engine.health))["running"]:
            await asyncio.sleep(0.005)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert await asyncio.to_thread(engine.wait_until_idle, 2.0) < 2.0


async def test_a_full_queue_is_answered_with_429_and_when_to_come_back(engine: EngineProcess) -> None:
    async with httpx.AsyncClient(base_url=engine.url, timeout=60) as client:
        body = {"model": "gpt2", "messages": ASK, "max_tokens": 200, "n": 8, "temperature": 0}
        replies = await asyncio.gather(*(client.post("/v1/chat/completions", json=body) for _ in range(6)))
    refused = [reply for reply in replies if reply.status_code == 429]
    assert refused
    assert {reply.status_code for reply in replies} == {200, 429}
    assert float(refused[0].headers["retry-after"]) > 0
    assert refused[0].json()["error"]["code"] == "queue_full"


# --- models, merges, encoders


def test_models_are_listed_with_their_kind(sdk: OpenAI) -> None:
    kinds = {model.id: model.model_dump()["kind"] for model in sdk.models.list()}
    assert kinds == {
        "llama": "model", "gpt2": "model", "plain": "model", "ends": "model", "encoder": "encoder",
        "kin/merge": "merge",
    }  # fmt: skip


def test_one_model_is_shown(sdk: OpenAI) -> None:
    sdk.chat.completions.create(**chat(max_tokens=1))
    assert sdk.models.retrieve("llama").model_dump()["context_window"] == CONTEXT
    assert sdk.models.retrieve("kin/merge").model_dump()["experts"] == ["a", "b"]


def test_a_merge_with_one_whole_expert_differs_from_the_base_and_is_named(sdk: OpenAI) -> None:
    fields = chat(temperature=0, max_tokens=40)
    base = sdk.chat.completions.create(**fields).choices[0].message.content
    merged = sdk.chat.completions.create(**{**fields, "model": "kin/merge:a=0.7,b=0.3"})
    assert merged.model == "kin/merge:a=0.7,b=0.3"
    assert merged.choices[0].message.content != base


def test_a_preference_is_the_merge_of_that_name(sdk: OpenAI) -> None:
    fields = chat(temperature=0, max_tokens=40)
    named = sdk.chat.completions.create(**{**fields, "model": "kin/merge:a=0.7,b=0.3"})
    preferred = sdk.chat.completions.create(
        **{**fields, "model": "kin/merge"}, extra_body={"orbweaver": {"preference": {"a": 7, "b": 3}}}
    )
    assert preferred.choices[0].message.content == named.choices[0].message.content


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("kin/merge:c=1", 404, "model_not_found"),
        ("kin/merge:a=2", 400, "invalid_recipe"),
        ("kin/merge:a=0", 400, "invalid_recipe"),
        ("kin/merge:a", 400, "invalid_recipe"),
        ("kin/merge", 400, "missing_preference"),
        ("other/merge:a=1", 404, "model_not_found"),
        ("encoder", 400, "unsupported_model"),
        ("lama", 404, "model_not_found"),
    ],
)
def test_names_that_stand_for_no_answer_are_refused(http: httpx.Client, model: str, status: int, code: str) -> None:
    reply = http.post("/v1/chat/completions", json=chat(model=model))
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)


def test_embeddings_have_length_one_and_do_not_depend_on_the_batch(sdk: OpenAI) -> None:
    texts = ["short", "a much longer text than that one", "x"]
    together = sdk.embeddings.create(model="encoder", input=texts)
    alone = [sdk.embeddings.create(model="encoder", input=text).data[0].embedding for text in texts]
    vectors = np.array([each.embedding for each in together.data])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert vectors == pytest.approx(np.array(alone), abs=1e-5)
    assert together.usage.prompt_tokens == sum(map(len, texts))


def test_embeddings_come_as_numbers_or_packed(http: httpx.Client) -> None:
    def ask(form: str) -> Any:
        body = {"model": "encoder", "input": "text", "encoding_format": form}
        return http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]

    packed = np.frombuffer(base64.b64decode(ask("base64")), dtype="<f4")
    assert packed == pytest.approx(np.array(ask("float"), dtype=np.float32))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "encoder", "input": "x" * 65}, "context_length_exceeded"),
        ({"model": "encoder", "input": ["a", ""]}, "invalid_value"),
        ({"model": "encoder", "input": [5000]}, "invalid_value"),
        ({"model": "encoder", "input": "a", "dimensions": 5}, "invalid_value"),
        ({"model": "llama", "input": "a"}, "unsupported_model"),
    ],
)
def test_wrong_embeddings_are_refused(http: httpx.Client, body: dict[str, Any], code: str) -> None:
    reply = http.post("/v1/embeddings", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)


# --- errors


def test_a_prompt_beyond_the_context_is_openais_error(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="llama", messages=[{"role": "user", "content": "x" * CONTEXT}])
    assert caught.value.code == "context_length_exceeded"


def test_an_unknown_model_is_openais_error(sdk: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="llama") as caught:
        sdk.chat.completions.create(model="lama", messages=ASK)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/v1/chat/completions", b"{", 400, "invalid_json"),
        ("/v1/chat/completions", b"\xff\xfe", 400, "invalid_json"),
        ("/v1/chat/completions", b"[]", 400, "invalid_body"),
        ("/v1/chat/completions", b'{"model": "llama"}', 400, "missing_required_parameter"),
        ("/v1/completions", b'{"model": "gpt2", "prompt": [99999]}', 400, "invalid_value"),
        ("/v1/completions", b'{"model": "gpt2", "prompt": "a", "logit_bias": {"5000": 1}}', 400, "invalid_value"),
        ("/v1/nothing", b"{}", 404, "not_found"),
        ("/chat/completions/", b"{}", 404, "not_found"),
    ],
)
def test_bad_requests_get_an_error_object(
    http: httpx.Client, path: str, content: bytes, status: int, code: str
) -> None:
    reply = http.post(path, content=content)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_a_wrong_method_gets_an_error_object(http: httpx.Client) -> None:
    reply = http.get("/v1/chat/completions")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")


def test_a_body_that_is_too_large_is_refused(http: httpx.Client) -> None:
    reply = http.post("/v1/chat/completions", content=b'{"x": "' + b"a" * 9_000_000 + b'"}')
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


def test_paths_without_v1_are_served(http: httpx.Client) -> None:
    assert http.post("/chat/completions", json=chat()).status_code == 200
    assert http.get("/models").json() == http.get("/v1/models").json()


def test_the_end_of_text_is_never_shown(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.create(**chat(model="ends", max_tokens=100))
    assert END not in (answer.choices[0].message.content or "")
