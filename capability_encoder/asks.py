"""Find what a prompt really asks: wrappers, agent reminders and pasted context are taken off before embedding.

Pure text functions, no I/O. The rules look at form only (labels, tags, option lines, question marks, blank lines),
so that the same ask gives the same text whether it comes alone or inside four thousand tokens of a log file.
"""

import re
import unicodedata
from dataclasses import dataclass

MAX_PROMPT_CHARS = 64_000
"""Longer prompts keep their first and last half of this many characters: an ask stands at an end."""
WHOLE_PROMPT_CHARS = 2_400
"""Prompts up to this length are taken whole (the embedder sees head and tail); longer ones are searched for the ask."""
BLOCK_CHARS = 1_200
"""A longer paragraph is hardly an ask; it is split at its lines."""
ASK_CHARS = 1_400
"""An ask found in a longer prompt is extended over its neighbours up to this many characters."""
ENDING_CHARS = 500
LABEL_CHARS = 60
"""How far from the end an instruction about the answer's form, and a label such as "Answer:", may begin."""
SENTENCES_CHARS = 400
"""How much of the end of one long paragraph is taken for its question."""
FEWEST_WORDS = 3
FEWEST_LETTERS = 12
"""A rule that would leave fewer words than this, and fewer letters, is not applied."""


@dataclass(frozen=True)
class Ask:
    """The text to embed, and the kinds of text taken off on the way (`reminder`, `context`, `wrapper`, `cut`)."""

    text: str
    removed: tuple[str, ...] = ()


_REMINDER_TAG = (
    r"system|reminder|context|environment|tool|function|search|results?|documents?|files?|memor|skill|hook|command"
    r"|stdout|stderr|attachment|instructions|metadata|editor|ide[_-]|workspace|logs?|snippet|history|background"
)
_CONTEXT_TAG = re.compile(
    rf"<(?P<tag>[a-zA-Z][\w.-]{{0,40}}?(?:{_REMINDER_TAG})[\w.-]{{0,40}}|(?:{_REMINDER_TAG})[\w.-]{{0,40}})"
    r"(?:\s[^<>\n]{0,400})?>",
    re.IGNORECASE,
)
_ASK_TAG = re.compile(
    r"<(?P<tag>question|query|user_query|user_request|user_message|request|ask|task|human|problem)>", re.IGNORECASE
)
_BRACKETED_REMINDER = re.compile(
    r"^[ \t]*[\[(](?:system|reminder|agent|internal|automated|important|note to)[^\]\)]{0,3000}[\])][ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_CHAT_MARKUP = re.compile(
    r"<\|(?:im_start|im_end|system|user|assistant|begin_of_text|eot_id|end)[^|]*\|>(?:user|system|assistant)?|"
    r"\[/?INST\]|</?s>"
)
_REMINDER_PARAGRAPH = re.compile(
    r"[*_#>\-\s]{0,40}(?:(?:system|agent|automated|friendly|quick|gentle)?\s*reminders?\b\s*[:\-,(]|"
    r"as a reminder\b|this is an? (?:automated |system |friendly )?reminder\b|remember(?: that| to)?\s*[:,]|"
    r"(?:system|developer)\s+(?:note|message|notice|prompt)\s*[:\-]|notes? (?:to|for) (?:the |self|yourself|"
    r"assistant|agent|model)|"
    r"you have access to (?:the )?(?:following )?(?:tools?|functions?|skills?)|the following (?:skills|"
    r"tools) are available|"
    r"your (?:todo|to-do|task) list|(?:the )?current (?:date|time|working directory|user)\b[^\n]{0,40}(?:is|:)|"
    r"today(?:'s date)? is\b|do not mention this (?:reminder|message)|"
    r"(?:never|do not|don't) (?:reveal|mention|share|disclose) (?:this|these|the) (?:reminder|system|instruction|"
    r"note)s?)",
    re.IGNORECASE,
)
_NOUN = r"(?:question|problem|task|query|prompt|request|exercise|puzzle|instruction|item|challenge|riddle)s?"
_PREFIXES = tuple(
    re.compile(r"[*_#>\s]{0,40}" + pattern, re.IGNORECASE)
    for pattern in (
        r"(?:hi|hello|hey|dear|good (?:morning|evening|afternoon))\b(?: there| all| assistant| team| everyone|"
        r" friend)?\s*[,!.]+\s",
        r"(?:(?:please|kindly|now|first|carefully)\s+)*"
        r"(?:answer|solve|respond to|read|consider|complete|address|tackle|work (?:through|out|on)|handle|"
        r"help me with|look at)\s+"
        r"(?:carefully\s+)?(?:(?=[^\n.?!]{0,60}\b(?:following|below|next)\b)|(?=[^\n.?!:]{0,90}:))"
        r"(?:the|this|these|my|each)\s+(?:of the )?(?:[\w-]+\s+){0,8}?" + _NOUN + r"\b[^\n:.?!]{0,120}[:.\n]+",
        r"(?:the following|below|here|this|what follows)\s*(?:is|are|'s)\s+(?:an?|the|some|my|"
        r"one)?\s*(?:[\w-]+\s+){0,6}?" + _NOUN + r"\b[^\n:.?!]{0,120}[:.\n]+",
        r"(?:can|could|would|will) you (?:please |kindly )?(?:help me )?(?:to )?(?:answer|solve|address|"
        r"with)\s+(?:the|this|these|my|a)\s+"
        r"(?:[\w-]+\s+){0,6}?" + _NOUN + r"\b[^\n:.?!]{0,80}[?:.\n]+",
        r"(?:i|we) (?:have|need|want|would like|got)\s+(?:to ask |you to |help with |an answer to )?(?:an?|the|this|"
        r"some)?\s*"
        r"(?:[\w-]+\s+){0,6}?" + _NOUN + r"\b[^\n:.?!]{0,80}[:.\n]+",
        r"you are (?:an?|the|now)\s+[^\n.?!]{0,120}?\b(?:assistant|expert|tutor|solver|agent|model|ai|chatbot|"
        r"specialist)\b[^\n.?!]{0,160}[.\n]+",
        r"(?:(?:user|my|the|actual|final|human)\s+)?(?:question|query|problem|prompt|q|task|instruction|input|user|"
        r"human|ask|request)"
        r"\s*(?:#?\d{1,3})?\s*(?:is)?\s*[:)]+\**\s+",
        r"#+\s*(?:question|query|problem|task|instruction|input)\b\s*",
    )
)
_FORMAT_WORDS = (
    r"(?:letter|options?|choices?|final answer|answer|single number|number|boxed|only|briefly|brief|short|phrase|"
    r"step[- ]by[- ]step|code|resulting value|nothing else|json|concise|format|reasoning|explanation|explain|thinking)"
)
_FORMAT_SENTENCE = re.compile(
    r"\W{0,20}(?:(?:and|please|kindly|then|finally|now|after careful thought,?|you (?:must|should|may|can)|"
    r"make sure(?: to| you)?|be sure to|remember to)\s+)*"
    r"(?:(?:answer|respond|reply|give|return|output|provide|put|state|end|conclude|finish|choose|select|pick|express|"
    r"present|"
    r"write (?:only|just|down|your)|include|show|explain your|think|let'?s think|let us think|do not|don'?t|only|"
    r"be concise|keep|"
    r"use the|take a deep|your (?:answer|response|reply)|the (?:last|final) line)\b[^\n]{0,220}?\b"
    + _FORMAT_WORDS
    + r"\b[^\n]{0,160}|think (?:it through |about it )?(?:carefully|step by step|hard)[^\n]{0,60}|"
    r"let'?s think[^\n]{0,60}|"
    r"complete the (?:code|function)(?: in \w+)?|take a deep breath[^\n]{0,80}|"
    r"(?:thanks?(?: you)?|many thanks|cheers|thank you)\b[^\n]{0,40}|i (?:would |really )?appreciate[^\n]{0,60}|"
    r"be (?:concise|brief)[^\n]{0,40})\s*\Z",
    re.IGNORECASE,
)
_ANSWER_LABEL = re.compile(
    r"(?:\A|\s)[*_#\s]*(?:(?:your|the|final|my|correct)\s+){0,2}(?:answer|a|response|assistant|solution|output|"
    r"reply)\s*[:=]\**\s*\Z",
    re.IGNORECASE,
)
_SENTENCE_BREAK = re.compile(r"(?<=[.?!:])[ \t]+")
_OPTION_LINE = re.compile(r"^[ \t]*\(?[A-Ja-j1-9][.):]\s+\S", re.MULTILINE)
_CONTEXT_LABEL = re.compile(
    r"^[ \t*_#>=\-]{0,20}(?:here (?:is|are)|below (?:is|are)|for (?:context|reference|background)|"
    r"(?:some |additional |more |background |retrieved |relevant |pasted |quoted |supporting |previous |attached |"
    r"the )*"
    r"(?:context|background|documents?|reference|logs?|notes|passages?|attachments?|file contents?|search results|"
    r"material|history|transcript|"
    r"conversation|begin[a-z]* (?:of )?\w+))\b[^\n]{0,100}?[:=\-*]+\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_ASK_LABEL = re.compile(
    r"^[ \t*_#>\-]{0,20}(?:(?:my|the|actual|user'?s?|final|human|now|main|real)\s+)*(?:question|task|query|ask|request|"
    r"problem|instruction)s?"
    r"(?:\s+is)?\s*[:#]+\**",
    re.IGNORECASE | re.MULTILINE,
)
_ASK_OPENING = re.compile(
    r"\A\W*(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|should|would|will|"
    r"if|find|calculate|compute|"
    r"determine|write|explain|describe|list|name|give|provide|create|summari[sz]e|translate|solve|prove|show|suggest|"
    r"identify|compare|"
    r"implement|fix|generate|complete|choose|select|tell|help|make|design|classify|rewrite|draft|you are given)\b",
    re.IGNORECASE,
)
_CODE_LINE = re.compile(
    r"^(?: {4,}|\t)\S|^[ \t]*(?:def|class|import|from|return|function|const|var|let|public|#include|assert|\"\"\"|>>>)",
    re.MULTILINE,
)
_CODE_START = re.compile(r"[ \t]*(?:def|class|from|import|function|const)\b")
_RULE_LINE = re.compile(r"^[ \t]*(?:[-=*_~]{3,}|```[\w-]*)[ \t]*$", re.MULTILINE)


def find_ask(prompt: str) -> Ask:
    """The ask of a prompt, on its own.

    Any string is accepted; an empty or blank one gives an empty ask. Idempotent on what it returns in nearly all cases.
    """
    text = _clean(prompt)
    removed: list[str] = []
    if len(text) > MAX_PROMPT_CHARS:
        half = MAX_PROMPT_CHARS // 2
        text = text[:half] + "\n\n" + text[-half:]
        removed.append("cut")
    rules = (
        ("reminder", strip_reminders),
        ("wrapper", strip_wrappers),
        ("context", strip_context),
        ("wrapper", strip_wrappers),
    )
    for kind, rule in rules:
        shorter = rule(text)
        if shorter != text:
            removed.append(kind)
            text = shorter
    return Ask(text, tuple(dict.fromkeys(removed)))


def strip_reminders(text: str) -> str:
    """Without the blocks that agent harnesses put around the ask: tagged blocks, bracketed and labelled reminders."""
    text = _tagged_ask(text)
    text = _keep_if_enough(text, _CHAT_MARKUP.sub("\n", text))
    text = _keep_if_enough(text, _without_tagged_blocks(text))
    text = _keep_if_enough(text, _BRACKETED_REMINDER.sub("\n", text))
    if "\n" in text:
        kept = [part for part in re.split(r"(\n\s*\n)", text) if not _REMINDER_PARAGRAPH.match(part)]
        lines = [line for line in "".join(kept).split("\n") if not _REMINDER_PARAGRAPH.match(line)]
        text = _keep_if_enough(text, "\n".join(lines))
    return text.strip()


def strip_wrappers(text: str) -> str:
    """Without openings such as "Answer the following question:" and endings such as "Answer with the letter only"."""
    for _ in range(4):
        before = text
        for prefix in _PREFIXES:
            found = prefix.match(text)
            if found is not None:
                text = _keep_if_enough(text, text[found.end() :])
        text = _strip_ending(text)
        if text == before:
            break
    return text


def strip_context(text: str) -> str:
    """The ask of a long prompt without the material pasted around it; prompts of ordinary length come back whole."""
    if len(text) <= WHOLE_PROMPT_CHARS:
        return text
    labelled = _labelled_ask(text)
    if labelled is not None:
        return labelled if len(labelled) <= WHOLE_PROMPT_CHARS else strip_context(labelled)
    blocks = _blocks(text)
    if len(blocks) < 2:
        return _last_sentences(text)
    best = max(range(len(blocks)), key=lambda index: (_ask_score(blocks, index), index))
    return _with_neighbours(blocks, best)


def _labelled_ask(text: str) -> str | None:
    """The part after the last "Question:" label, or before a "Context:" label when the ask stands first."""
    asks = list(_ASK_LABEL.finditer(text))
    contexts = list(_CONTEXT_LABEL.finditer(text))
    if asks and asks[-1].start() > 0:
        end = next((match.start() for match in contexts if match.start() > asks[-1].end()), len(text))
        ask = text[asks[-1].end() : end].strip()
        if _is_enough(ask) and len(ask) < 0.8 * len(text):
            return ask
    if contexts and contexts[0].start() > 0:
        ask = text[: contexts[0].start()].strip()
        if _is_enough(ask) and not _CONTEXT_LABEL.match(text) and len(ask) < 0.8 * len(text):
            return ask
    return None


def _blocks(text: str) -> list[str]:
    """Paragraphs; rules and fences separate too. A long paragraph is split at its lines, options kept together."""
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", _RULE_LINE.sub("\n\n", text)):
        if not paragraph.strip():
            continue
        if len(paragraph) <= BLOCK_CHARS or "\n" not in paragraph:
            blocks.append(paragraph.strip("\n"))
            continue
        for line in paragraph.split("\n"):
            if blocks and _OPTION_LINE.match(line):
                blocks[-1] += "\n" + line
            elif line.strip():
                blocks.append(line)
    return blocks


def _ask_score(blocks: list[str], index: int) -> float:
    """How much a block looks like the ask, by its form and by where it stands."""
    block = blocks[index]
    last_line = block.rstrip().rsplit("\n", 1)[-1]
    score = 3.0 if len(_OPTION_LINE.findall(block)) >= 2 else 0.0
    score += 2.0 if block.rstrip().endswith("?") else 1.0 if "?" in block else 0.0
    score += 1.0 if _FORMAT_SENTENCE.match(last_line) else 0.0
    score += 1.0 if _ASK_OPENING.match(block) else 0.0
    score -= 2.0 if block.lstrip().startswith((">", "|")) else 0.0
    score -= 2.0 if _stem_chars(block) > BLOCK_CHARS else 0.0
    edge = min(index, len(blocks) - 1 - index)
    score += {0: 2.0, 1: 1.5, 2: 1.0}.get(edge, 0.0) + (0.5 if index == len(blocks) - 1 else 0.0)
    return score


def _with_neighbours(blocks: list[str], best: int) -> str:
    """The chosen block, everything between it and the nearer end, and the stem that its options or code belong to."""
    first = last = best
    near_end = best >= len(blocks) / 2
    size = _stem_chars(blocks[best])
    while near_end and last + 1 < len(blocks) and size + _stem_chars(blocks[last + 1]) <= ASK_CHARS:
        last += 1
        size += _stem_chars(blocks[last])
    while not near_end and first > 0 and size + _stem_chars(blocks[first - 1]) <= ASK_CHARS:
        first -= 1
        size += _stem_chars(blocks[first])
    while first > 0 and _needs_stem(blocks[first : last + 1]):
        first -= 1
    while last + 1 < len(blocks) and _OPTION_LINE.match(blocks[last + 1]):
        last += 1
    return "\n\n".join(blocks[first : last + 1])


def _last_sentences(text: str) -> str:
    """The end of a single long paragraph, if it ends in a question; else the whole of it."""
    if not text.endswith("?"):
        return text
    starts = [match.end() for match in re.finditer(r"[.!?]\s+", text) if len(text) - match.end() <= SENTENCES_CHARS]
    return text[starts[0] :] if starts else text


def _stem_chars(block: str) -> int:
    """Characters outside option lines: a long list of options does not use up the room for the question."""
    return sum(len(line) for line in block.split("\n") if not _OPTION_LINE.match(line))


def _needs_stem(blocks: list[str]) -> bool:
    """Whether the text so far is only options, a format line, an indented piece of code or a very short question."""
    body = [block for block in blocks if not _FORMAT_SENTENCE.match(block.strip())]
    if not body or _OPTION_LINE.match(body[0]):
        return True
    if any(map(_OPTION_LINE.search, body)):
        return False
    if _CODE_LINE.match(body[0]) and not _CODE_START.match(body[0]):
        return sum(map(len, body)) < ASK_CHARS
    return sum(map(_stem_chars, body)) < 25


def _tagged_ask(text: str) -> str:
    """What the last `<question>...</question>` (or a like tag) holds, else the text."""
    closing = _Closings(text)
    for opening in reversed(list(_ASK_TAG.finditer(text))):
        end = closing.after(opening)
        if end is not None and _is_enough(text[opening.end() : end[0]]):
            return text[opening.end() : end[0]].strip()
    return text


def _without_tagged_blocks(text: str) -> str:
    """The text without `<system-reminder>...</system-reminder>`, `<document>...</document>` and their like."""
    closing = _Closings(text)
    kept: list[str] = []
    position = 0
    for opening in _CONTEXT_TAG.finditer(text):
        end = closing.after(opening) if opening.start() >= position else None
        if end is not None:
            kept += (text[position : opening.start()], "\n\n")
            position = end[1]
    return "".join((*kept, text[position:])) if kept else text


class _Closings:
    """Where tags close; a tag that closes nowhere is looked for once, so that many unclosed ones cost no more."""

    def __init__(self, text: str) -> None:
        self._text = text.lower()
        self._last: dict[str, int] = {}

    def after(self, opening: re.Match[str]) -> tuple[int, int] | None:
        """Start and end of the first closing tag after an opening one."""
        mark = f"</{opening.group('tag').lower()}"
        if mark not in self._last:
            self._last[mark] = self._text.rfind(mark)
        if self._last[mark] < opening.end():
            return None
        start = self._text.index(mark, opening.end())
        end = self._text.find(">", start)
        return (start, end + 1) if end != -1 else None


def _strip_ending(text: str) -> str:
    label = _ANSWER_LABEL.search(text, max(0, len(text) - LABEL_CHARS))
    if label is not None:
        text = _keep_if_enough(text, text[: label.start()])
    paragraphs = text.rsplit("\n\n", 2)
    if len(paragraphs) == 3 and _is_line_after_options(paragraphs[1], paragraphs[2]):
        text = text[: -len(paragraphs[2])].rstrip()
    line_start = text.rfind("\n") + 1
    breaks = [found.end() for found in _SENTENCE_BREAK.finditer(text, max(line_start, len(text) - ENDING_CHARS))]
    cut = breaks[-1] if breaks else line_start
    is_option = bool(breaks) and _OPTION_LINE.match(text, line_start) is not None
    if cut > 0 and not is_option and _FORMAT_SENTENCE.match(text, cut):
        text = _keep_if_enough(text, text[:cut])
    return text.strip()


def _is_line_after_options(options: str, last: str) -> bool:
    """A short last line after a list of options is an instruction, whatever its words (or their typos) are."""
    return (
        len(last) <= 160
        and "\n" not in last
        and not last.endswith("?")
        and len(_OPTION_LINE.findall(options)) >= 2
        and not _OPTION_LINE.match(last)
    )


def _clean(prompt: str) -> str:
    text = unicodedata.normalize("NFC", prompt.replace("\r\n", "\n").replace("\r", "\n"))
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufeff\u200b-\u200f\ud800-\udfff]", " ", text).strip()


def _is_enough(text: str) -> bool:
    """At least a few words, or some characters of a script without spaces."""
    # The beginning nearly always settles it, and it is what a long text can afford.
    return any(
        len(part.split()) >= FEWEST_WORDS or sum(map(str.isalpha, part)) >= FEWEST_LETTERS
        for part in (text[:400], text)
    )


def _keep_if_enough(before: str, after: str) -> str:
    after = after.strip()
    return after if after != before and _is_enough(after) else before
