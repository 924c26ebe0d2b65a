"""The ask is found whatever stands around it, at bounded cost."""

import time

import pytest

from capability_encoder.asks import MAX_PROMPT_CHARS, find_ask

ASK = "A train leaves at noon at 60 miles per hour. When has it gone 210 miles?"
CHOICE = "Which gas do plants take in?\n\nA. Oxygen\nB. Carbon dioxide\nC. Helium\nD. Neon"
FILLER = "The valve was inspected by the night shift and nothing unusual was found on that day. "


@pytest.mark.parametrize("ask", [ASK, CHOICE], ids=["open", "choice"])
@pytest.mark.parametrize(
    "wrap",
    [
        "Answer the following question as best you can.\n\n{}",
        "Please answer the following multiple choice question:\n{}\nThink step by step.",
        "You are a helpful assistant. Here is a question for you:\n\nQuestion: {}\n\nAnswer:",
        "{}\n\nAnswer with the letter of the correct option.",
        "{}\nPlease give only the final answer, no explanation.",
        "Hello! {}\n\nThanks in advance!",
    ],
    ids=["answer-the-following", "multiple-choice", "persona", "letter", "only", "polite"],
)
def test_takes_wrappers_off(ask: str, wrap: str) -> None:
    assert find_ask(wrap.format(ask)).text == ask


@pytest.mark.parametrize(
    "wrap",
    [
        "<system-reminder>Your todo list is empty. Do not mention this.</system-reminder>\n{}",
        "{}\n\n<system-reminder>\nDo what was asked;\nnothing more.\n</system-reminder>",
        "[System reminder: 40 % of the context window is used.]\n\n{}",
        "{}\n\nReminder: follow the conventions of the project.",
        "<environment_details>cwd=/tmp</environment_details>\n<user_query>{}</user_query>",
    ],
    ids=["tag-before", "tag-after", "brackets", "label", "query-tag"],
)
def test_takes_agent_reminders_off(wrap: str) -> None:
    found = find_ask(wrap.format(ASK))
    assert found.text == ASK
    assert "reminder" in found.removed


@pytest.mark.parametrize(
    "wrap",
    [
        "{filler}\n\n{ask}",
        "{ask}\n\n{filler}",
        "Context:\n{filler}\n\nQuestion: {ask}",
        "{ask}\n\nHere is the document for reference:\n\n{filler}",
        "```\n{filler}\n```\n\n{ask}",
        "<document>\n{filler}\n</document>\n\n{ask}",
    ],
    ids=["before", "after", "labelled", "announced", "fenced", "tagged"],
)
@pytest.mark.parametrize("ask", [ASK, CHOICE], ids=["open", "choice"])
def test_finds_the_ask_in_four_thousand_tokens_of_pasted_context(wrap: str, ask: str) -> None:
    filler = "\n\n".join([FILLER * 6] * 30)
    assert find_ask(wrap.format(filler=filler, ask=ask)).text == ask


@pytest.mark.parametrize(
    "prompt",
    [
        ASK,
        "Write only one sentence about rain.",
        "Answer.",
        "你好，请写一首诗",
        "def f(x):\n    return x\n\nExplain this.",
    ],
    ids=["plain", "only", "one-word", "chinese", "code"],
)
def test_leaves_a_plain_prompt_alone(prompt: str) -> None:
    assert find_ask(prompt).text == prompt
    assert find_ask(prompt).removed == ()


@pytest.mark.parametrize("prompt", ["", "  \n\t ", "\x00\u200b"], ids=["empty", "blank", "invisible"])
def test_an_empty_prompt_gives_an_empty_ask(prompt: str) -> None:
    assert find_ask(prompt).text == ""


def test_a_list_of_options_is_not_an_instruction() -> None:
    prompt = "Why is the sky blue?\nA. It reflects the sea.\nB. Light scatters. Choose the short wavelength option."
    assert find_ask(prompt).text == prompt


def test_a_misspelt_instruction_after_options_goes_too() -> None:
    assert find_ask(CHOICE + "\n\nAqswer wiht the lteter of the corect optoin.").text == CHOICE


def test_an_enormous_prompt_is_cut_to_its_ends() -> None:
    found = find_ask("x " * MAX_PROMPT_CHARS + "\n\n" + ASK)
    assert found.text == ASK
    assert "cut" in found.removed


@pytest.mark.parametrize(
    "unit",
    ["# ", "<file>x ", " \n \n", "[", "answer ", "_*", "    x = 1\n", "A. x\n", "```\n", "> ", "<a ", "-", "?", "\n"],
)
def test_no_repeated_pattern_makes_the_search_slow(unit: str) -> None:
    start = time.process_time()
    find_ask(unit * (MAX_PROMPT_CHARS // len(unit)) + " what is it?")
    # Nested repetition in a rule would take minutes; half a second of processor time is ten times what it needs.
    assert time.process_time() - start < 2.0
