"""Where a reply commits to an answer: `Answer:` in six languages, boxed LaTeX, "not A but B". The last one counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words that announce an answer. The verbs and fillers that may follow are in _LINK.
_NOUNS = r"""
    (?:final\s|correct\s|right\s|best\s|my\s)*(?:answer|result|solution)
    | (?:最终|正确|标准|最后|参考)?的?(?:答案|结果)
    | (?:respuesta|soluci[oó]n|resultado)(?:\s(?:final|correcta))?
    | opci[oó]n\scorrecta
    | (?:(?:richtige|korrekte|endg[uü]ltige)\s)?(?:antwort|l[oö]sung|ergebnis|endergebnis)
    | (?:bonne\s)?(?:r[ée]ponse|solution|r[ée]sultat)(?:\s(?:finale?|correcte?))?
    | (?:الإجابة|الاجابة|الجواب|النتيجة|الحل|الناتج)(?:\s(?:الصحيحة|الصحيح|النهائية|النهائي))?
"""
_LINK = r"""
    (?:\s|[:：=»"”'*】\]|،,]|-(?!\d)|—|
       \b(?:is|was|are|would\sbe|should\sbe|must\sbe|then|therefore|thus|so|now|indeed|definitely|clearly)\b|
       是|为|应为|应该是|应当是|选|就|即|
       \b(?:es|ser[ií]a|son|correcta|por\stanto)\b|
       \b(?:ist|lautet|w[aä]re|betr[aä]gt|sind|daher|also|somit|damit)\b|
       \b(?:est|serait|sont|donc|vaut)\b|
       (?<![\w])(?:هي|هو|تكون|هنا)(?![\w]))*
"""
_MARKER = re.compile(rf"(?:{_NOUNS})(?P<link>{_LINK})", re.VERBOSE | re.IGNORECASE)

# "not A but B": the refuted part goes, the committed one stays.
_NOT_BUT = re.compile(
    r"""(?:\bisn't|\baren't|\bnot)\b(?P<a>[^.;\n]{1,40}?),?\s(?:but(?:\srather)?|rather)\b
    | 不(?:是|在|为)?(?P<b>[^。；\n]{1,30}?)[，,]?\s*(?:而是|而在|而应是|而|应是)
    | \bno\b(?P<c>[^.;\n]{1,40}?),?\ssino\b
    | \bnicht\b(?P<d>[^.;\n]{1,40}?),?\ssondern\b
    | (?:\bn'est\b|\bne\ssont\b|\bn'\w+)?\s?\bpas\b(?P<e>[^.;\n]{1,40}?),?\smais\b
    | (?:ليست|ليس)\s(?P<f>[^.؛\n]{1,40}?)،?\s(?:بل|وإنما|ولكن)\s""",
    re.VERBOSE | re.IGNORECASE,
)
_MAX_BOXED_CHARS = 300
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")


@dataclass(frozen=True, slots=True)
class Commitment:
    """A place where the reply commits itself: what follows, and where it begins."""

    start: int
    text: str


def drop_refuted(text: str) -> str:
    """The text without what it says the answer is not, where it goes on to say what it is."""
    return _NOT_BUT.sub(" : ", text)  # the colon keeps "the answer is not A but B" an announcement


def find_boxed(text: str) -> list[Commitment]:
    """Contents of `\\boxed{...}` in order, braces matched."""
    found = []
    for match in _BOXED.finditer(text):
        depth, end = 1, match.end()
        while end < min(len(text), match.end() + _MAX_BOXED_CHARS) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        found.append(Commitment(match.start(), text[match.end() : end - 1 if depth == 0 else end].strip()))
    return found


def find_announced(text: str) -> list[Commitment]:
    """What follows each announcement of an answer, to the end of its line; in order.

    A noun alone ("the answer depends on ...") announces nothing: a verb, a colon or a line break must follow.
    """
    found = []
    for match in _MARKER.finditer(text):
        if not match["link"].strip() and "\n" not in match["link"]:
            continue
        rest = text[match.end() :].split("\n", 1)[0].strip()
        if rest:
            found.append(Commitment(match.start(), rest))
    return found


def last_commitment(text: str) -> Commitment | None:
    """The last place where the reply commits itself, boxed or announced."""
    return max(find_boxed(text) + find_announced(text), key=lambda found: found.start, default=None)
