"""The newest human ask is found behind tool results and agent reminders."""

import pytest

from gateway.routing.ask import newest_ask, strip_machine_text, text_of


def user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize(
    ("messages", "ask"),
    [
        ([user("What is 2+2?")], "What is 2+2?"),
        ([user("First"), {"role": "assistant", "content": "ok"}, user("Second")], "Second"),
        ([user("Sort it"), {"role": "assistant", "content": None}, {"role": "tool", "content": "42 rows"}], "Sort it"),
        ([user("Fix the bug"), user("<system-reminder>todo list is empty</system-reminder>")], "Fix the bug"),
        ([user("<system-reminder>x</system-reminder>Rename the file")], "Rename the file"),
        ([user("Count them"), user("Observation: the file has 12 lines")], "Count them"),
        ([user([{"type": "text", "text": "Describe"}, {"type": "image_url", "image_url": {}}])], "Describe"),
        ([user("Ask"), user("<tool_result>\nlong <b>html</b>\n</tool_result>")], "Ask"),
        ([{"role": "system", "content": "Be brief."}], "Be brief."),
        ([], ""),
        ([user(None), "not a message", 7], ""),
    ],
    ids=range(11),
)
def test_newest_human_ask_is_found(messages: list[object], ask: str) -> None:
    assert newest_ask(messages) == ask


def test_an_unclosed_block_runs_to_the_end() -> None:
    assert strip_machine_text("keep <tool_result> never closed") == "keep"


def test_a_tag_that_only_begins_alike_is_kept() -> None:
    assert strip_machine_text("a <user_information>b</user_information>") == "a <user_information>b</user_information>"


def test_every_block_of_one_kind_is_removed() -> None:
    text = "<system-reminder>a</system-reminder> one <system-reminder>b</system-reminder> two"
    assert strip_machine_text(text) == "one  two"


def test_many_unclosed_tags_take_linear_time() -> None:
    assert strip_machine_text("<user_info" * 100_000) == "<user_info" * 100_000


def test_the_end_of_a_huge_turn_is_never_cut() -> None:
    assert newest_ask([user("x" * 1_000_000 + " Now what is the capital of Peru?")]).endswith("capital of Peru?")


def test_text_of_joins_only_text_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_audio"}, {"type": "input_text", "text": "b"}]
    assert text_of(parts) == "a\nb"
