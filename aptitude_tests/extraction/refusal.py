"""Whether a reply declines: used only where it holds no answer, to tell "refused" from "no answer"."""

from __future__ import annotations

import re

_REFUSALS = re.compile(
    r"""\bi(?:'m|\sam)?\s(?:can(?:no|')t|can\snot|won't|(?:am\s)?(?:sorry|unable|not\sable))
    | \bas\san\sai\b
    | 抱歉 | 对不起 | 我(?:无法|不能)
    | \blo\s(?:siento|lamento)\b | \bno\s(?:puedo|me\ses\sposible)\b
    | tut\smir\sleid | \bkann\s(?:ich\s)?(?:leider|dabei\s)?.{0,20}nicht\b | \bdarf\sich\snicht\b
    | kann\sich\sleider\snicht
    | \bd[ée]sol[ée]e?\b | \bje\sne\speux\spas\b | \bje\sregrette\b
    | عذر | آسف | أعتذر | لا\s(?:أستطيع|يمكنني)""",
    re.VERBOSE | re.IGNORECASE,
)


def is_refusal(reply: str) -> bool:
    """True where the reply says that it cannot or will not answer, in any of the six languages."""
    return bool(_REFUSALS.search(reply.replace("’", "'")))
