"""What the stream readers notice, repair and take out, and that everything else passes untouched."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.registry.records import Endpoint
from gateway.upstreams.answer import ChatReader, ResponsesReader, reader_for
from gateway.upstreams.sse import parse_event, split_events
from tests.support.scripted_upstream import DONE, chat_chunk, event

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def delta(*calls: dict[str, Any], index: int = 0) -> bytes:
    return event(chat_chunk({"tool_calls": list(calls)}, index=index))


def indexes(block: bytes) -> list[int]:
    return [
        call["index"]
        for each in split_events(block)
        for choice in (parse_event(each) or {})["choices"]
        for call in choice["delta"]["tool_calls"]
    ]


KINDS: dict[str, tuple[bytes, str]] = {
    "comment": (b": ping\n\n", "nothing"),
    "named ping": (b'event: ping\ndata: {"type": "ping"}\n\n', "nothing"),
    "role only": (event(chat_chunk({"role": "assistant", "content": ""})), "opening"),
    "role and null": (event(chat_chunk({"role": "assistant", "content": None, "refusal": None})), "opening"),
    "empty choices": (event({"choices": [], "prompt_filter_results": [{}]}), "opening"),
    "text": (event(chat_chunk({"content": " "})), "token"),
    "reasoning": (event(chat_chunk({"reasoning_content": "hm"})), "token"),
    "reasoning, other name": (event(chat_chunk({"reasoning": "hm"})), "token"),
    "tool call": (delta({"index": 0, "id": "a"}), "token"),
    "refusal": (event(chat_chunk({"refusal": "No"})), "token"),
    "finish": (event(chat_chunk({}, "stop")), "token"),
    "legacy text": (event({"choices": [{"index": 0, "text": "Hi", "finish_reason": None}]}), "token"),
    "legacy empty": (event({"choices": [{"index": 0, "text": "", "finish_reason": None}]}), "opening"),
    "error": (event({"error": {"message": "no"}}), "error"),
    "error null": (event({"error": None, "choices": []}), "opening"),
    "no JSON": (b"data: <html>\n\n", "error"),
    "end": (DONE, "end"),
}


@pytest.mark.parametrize(("data", "kind"), KINDS.values(), ids=KINDS)
def test_what_counts_as_a_first_token_of_a_chat(data: bytes, kind: str) -> None:
    assert ChatReader().kind(data)[0] == kind


RESPONSE_KINDS = {
    "response.created": "opening",
    "response.in_progress": "opening",
    "keepalive": "nothing",
    "response.output_text.delta": "token",
    "response.reasoning_summary_text.delta": "token",
    "response.completed": "token",
    "response.failed": "error",
    "error": "error",
}


@pytest.mark.parametrize(("name", "kind"), RESPONSE_KINDS.items())
def test_what_counts_as_a_first_token_of_a_response(name: str, kind: str) -> None:
    assert ResponsesReader().kind(event({"type": name}, name))[0] == kind


def test_a_usual_block_passes_as_the_same_object() -> None:
    block = event(chat_chunk({"content": "Hi"}, usage=None))
    assert ChatReader().pass_on(block) is block


def test_indexes_that_are_there_are_kept_even_if_odd() -> None:
    block = delta({"index": 3, "id": "a"}) + delta({"index": 0, "id": "b"})
    assert ChatReader().pass_on(block) == block


REPAIRS: dict[str, tuple[list[dict[str, Any]], list[int]]] = {
    "ids begin calls": ([{"id": "a"}, {"function": {}}, {"id": "b"}, {"function": {}}], [0, 0, 1, 1]),
    "null": ([{"index": None, "id": "a"}, {"index": None}], [0, 0]),
    "no id at all": ([{"function": {}}, {"function": {}}], [0, 0]),
    "goes on from those present": ([{"index": 0, "id": "a"}, {"id": "b"}], [0, 1]),
}


@pytest.mark.parametrize(("calls", "expected"), REPAIRS.values(), ids=REPAIRS)
@pytest.mark.parametrize("together", [True, False])
def test_missing_indexes_are_repaired(calls: list[dict[str, Any]], expected: list[int], together: bool) -> None:
    reader = ChatReader()
    blocks = [delta(*calls)] if together else [delta(call) for call in calls]
    assert indexes(b"".join(reader.pass_on(block) for block in blocks)) == expected


def test_choices_are_repaired_each_on_its_own() -> None:
    reader = ChatReader()
    first, second = delta({"id": "a"}, index=0), delta({"id": "b"}, index=1)
    assert indexes(reader.pass_on(first) + reader.pass_on(second)) == [0, 0]


@pytest.mark.parametrize("hide", [True, False])
def test_usage_is_noted_and_taken_out_only_where_nobody_asked(hide: bool) -> None:
    reader = ChatReader(hide_usage=hide)
    usage = event(chat_chunk(None, usage=USAGE))
    assert reader.pass_on(usage) == (b"" if hide else usage)
    assert reader.usage == USAGE


def test_usage_beside_choices_is_never_taken_out() -> None:
    block = event(chat_chunk({}, "stop", usage=USAGE))
    reader = ChatReader(hide_usage=True)
    assert reader.pass_on(block) == block
    assert reader.usage == USAGE


def test_null_usage_in_one_event_does_not_hide_the_real_one_in_the_next() -> None:
    reader = ChatReader()
    reader.pass_on(event(chat_chunk({"content": "x"}, usage=None)) + event(chat_chunk(None, usage=USAGE)))
    assert reader.usage == USAGE


def test_marks_inside_a_text_change_nothing() -> None:
    block = event(chat_chunk({"content": '[DONE] "error": "usage": {"a": 1} "tool_calls": data: [DONE]'}))
    reader = ChatReader()
    assert reader.pass_on(block) == block
    assert not reader.done
    assert reader.error is None


def test_an_error_event_is_noted_and_passed_on() -> None:
    reader = ChatReader()
    block = event({"error": {"message": "no"}})
    assert reader.pass_on(block) == block
    assert reader.error == {"message": "no"}
    assert reader.finish() == b""


def test_nothing_follows_done() -> None:
    reader = ChatReader()
    assert reader.pass_on(event(chat_chunk({}, "stop")) + DONE + DONE).endswith(DONE)
    assert reader.done
    assert reader.pass_on(DONE) == b""


def test_a_finished_answer_gets_its_done_and_a_cut_one_does_not() -> None:
    finished, cut = ChatReader(), ChatReader()
    finished.pass_on(event(chat_chunk({}, "stop")))
    cut.pass_on(event(chat_chunk({"content": "Hi"})))
    assert finished.finish() == DONE
    assert cut.finish() is None


@pytest.mark.parametrize("space", ["", " "])
def test_characters_are_counted_for_the_estimate(space: str) -> None:
    reader = ChatReader()
    for text in ("Hello", " there"):
        reader.pass_on(f'data: {{"choices":[{{"delta":{{"content":{space}"{text}"}}}}]}}\n\n'.encode())
    assert reader.characters == 11


def test_a_response_ends_with_its_last_event() -> None:
    reader = reader_for(Endpoint.RESPONSES)
    assert reader.finish() is None
    block = event({"type": "response.completed", "response": {"usage": {"input_tokens": 3}}}, "response.completed")
    assert reader.pass_on(block) == block
    assert reader.done
    assert reader.usage == {"input_tokens": 3}
    assert reader.finish() == b""


def test_a_text_about_response_completed_does_not_end_a_response() -> None:
    reader = ResponsesReader()
    reader.pass_on(event({"type": "response.output_text.delta", "delta": '"response.completed"'}))
    assert not reader.done
