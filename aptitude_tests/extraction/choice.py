"""The option letter a reply commits to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from aptitude_tests.extraction.cleaning import answer_part, fold_scripts, fold_text, strip_markup
from aptitude_tests.extraction.commitment import drop_refuted, find_announced, find_boxed, last_commitment
from aptitude_tests.item import LETTERS

_ARABIC = {"أ": "A", "ا": "A", "ب": "B", "ج": "C", "د": "D", "ه": "E"}
_OPTION_WORD = (
    r"(?:option|choice|letter|the|opci[oó]n|letra|la|el|antwort|buchstabe|die|proposition|lettre|选项|الخيار|الحرف)"
)
_LETTER = r"[(\[（【\"'$\s]*(?P<letter>[A-Ja-j]|[أابجده])(?![A-Za-z0-9_À-ɏ'\u0600-\u06ff]|-\w)"
_CHOSEN = re.compile(
    rf"""(?:go(?:ing)?\swith|choose|select|pick|opt\sfor|elijo|escojo|elegir[ií]a|w[aä]hle|entscheide\smich\sf[uü]r
        |choisis|opte\spour|选择?|应选|选项?是|أختار|اختار|richtig\sist|correct\sis|correcta\ses)
        \s*(?:also|nun|:|：)?\s*(?:{_OPTION_WORD}\s*)*{_LETTER}""",
    re.VERBOSE | re.IGNORECASE,
)
_CONFIRMED = re.compile(
    r"""(?<![A-Za-z0-9_À-ɏ'])[(\[（]?(?P<letter>[A-J])[)\]）.]?\s*
        (?:is\s(?:the\s)?(?:correct|right|best)|ist\s(?:die\s)?(?:richtig|korrekt)|es\s(?:la\s)?(?:correct|opci[oó]n\scorrect)
        |est\s(?:la\s)?(?:correct|bonne|juste)|(?:项|选项)?(?:是)?正确|صحيح|هو\sالصحيح)""",
    re.VERBOSE | re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:\bnot|n't|\bno\ses|\bnicht|\bpas|不是|ليست|ليس)\s*(?:[a-z]{2,9}\s)?[(（]?[A-Ja-j][)）]?(?![A-Za-z0-9_À-ɏ'])",
    re.IGNORECASE,
)
_OPENING = re.compile(r"^\W*(?P<letter>[A-Ja-j])\s*(?:[).:\]）．、,،]|$)")
_LINE = re.compile(r"(?m)^[^\w\n]*(?P<letter>[A-J])[^\w\n]*$")
_BRACKETED = re.compile(r"[(（\[](?P<letter>[A-J])[)）\]]")
_STARTS_WITH_LETTER = re.compile(rf"^(?:{_OPTION_WORD}\s*)*{_LETTER}", re.IGNORECASE)


def extract_choice(reply: str, options: Sequence[str] = ()) -> str | None:
    """The letter, `A` to `J`, that the reply commits to last; None where it commits to none.

    Args:
        options: texts of the options, so that a reply in their words counts too.
    """
    text = strip_markup(fold_scripts(answer_part(reply)))
    text = _DENIED.sub(" ", drop_refuted(text))
    allowed = LETTERS[: len(options)] if options else LETTERS
    committed = [(at, letter) for at, letter in _committed(text) if letter in allowed]
    if committed:
        return max(committed)[1]
    named = _named_option(text, options)
    if named is not None:
        return named
    for pattern in (_OPENING, _LINE):
        found = [match["letter"].upper() for match in pattern.finditer(text.strip())]
        if found and found[-1] in allowed:
            return found[-1]
    bracketed = {match["letter"] for match in _BRACKETED.finditer(text)} & set(allowed)
    return bracketed.pop() if len(bracketed) == 1 else None


def _committed(text: str) -> Iterator[tuple[int, str]]:
    for found in find_boxed(text) + find_announced(text):
        match = _STARTS_WITH_LETTER.match(found.text)
        if match and not _is_article(match["letter"], found.text[match.end() :]):
            yield found.start, _ARABIC.get(match["letter"], match["letter"].upper())
    for pattern in (_CHOSEN, _CONFIRMED):
        for match in pattern.finditer(text):
            if not _is_article(match["letter"], text[match.end() :]):
                yield match.start(), _ARABIC.get(match["letter"], match["letter"].upper())


def _is_article(letter: str, rest: str) -> bool:
    """`a`, `A`, `I`, `e` and the like as words of a sentence: a letter and then another word, without punctuation."""
    return (
        letter in "aAIe"
        and re.match(r"\s+(?!because|since|as\b|porque|weil|car\b|parce)[^\W\d_]{2,}", rest) is not None
    )


def _named_option(text: str, options: Sequence[str]) -> str | None:
    """The one option whose text the reply's commitment, or else its last sentences, contain."""
    if not options:
        return None
    committed = last_commitment(text)
    sentences = [part for part in re.split(r"(?<=[.!?。！？])\s+|\n+|(?<=。)", text) if part.strip()]
    for part in ([committed.text] if committed else []) + sentences[::-1] + [text]:
        held = fold_text(part)
        named = [i for i, option in enumerate(options) if len(option) > 1 and fold_text(option) in held]
        longest = [
            i for i in named if not any(i != j and fold_text(options[i]) in fold_text(options[j]) for j in named)
        ]
        if len(longest) == 1:
            return LETTERS[longest[0]]
    return None
