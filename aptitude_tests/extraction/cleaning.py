"""Writing differences that carry no meaning: reasoning blocks, Markdown, LaTeX wrappers, digits of other scripts."""

from __future__ import annotations

import re
import unicodedata

_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_MAX_ANSWER_CHARS = 20_000
_SUPERSCRIPTS = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_DIGITS = {code: str(unicodedata.digit(chr(code))) for start in (0x0660, 0x06F0) for code in range(start, start + 10)}
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mathit|operatorname)\s*\{([^{}]*)\}")
_LATEX_SPACING = re.compile(r"\\[,;:!]|\\(?:quad|left|right|displaystyle)\b|~")
_ARABIC_LETTERS = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ى": "ي", "ة": "ه", "ـ": ""})
_ARTICLES = re.compile(
    r"^(?:the|an?|el|la|los|las|un|una|der|die|das|den|dem|ein|eine|einen|le|les|une|l'|in the|in|im|en|au|dans)\b\s*"
)


def strip_thoughts(text: str) -> str:
    """Drop reasoning blocks; one that never ends is all there is, so nothing is left."""
    head, closing, tail = text.rpartition("</think>")
    if closing and "<think>" not in head:
        text = tail
    return _THOUGHT.sub("", text).strip()


def answer_part(reply: str) -> str:
    """The reply without its reasoning, of an endless one the last part: answers stand at the end."""
    return strip_thoughts(reply)[-_MAX_ANSWER_CHARS:]


def fold_scripts(text: str) -> str:
    """Full-width letters and digits, Arabic-Indic digits and odd spaces as their plain forms; exponents go."""
    text = _SUPERSCRIPTS.sub("", text).translate(_DIGITS)
    return unicodedata.normalize("NFKC", text).replace("⁄", "/").replace("−", "-").replace("’", "'")


def strip_markup(text: str) -> str:
    """Markdown emphasis, headings, quotes of code and LaTeX wrappers that stand around an answer."""
    for _ in range(2):
        text = _LATEX_TEXT.sub(r"\1", text)
    text = _LATEX_SPACING.sub(" ", text)
    text = re.sub(r"\*\*|__|`+(?:text|plaintext)?", "", text)
    return re.sub(r"(?m)^[ \t]*(?:#{1,6}|>)[ \t]+", "", text)


def strip_quotes(text: str) -> str:
    """The text without surrounding quotation marks, brackets and closing punctuation."""
    return text.strip(" \t\r\n\"'“”„«»‘’*`.,;:!。，；：！،؛[]<>")


def fold_text(text: str) -> str:
    """A form in which equal answers are equal: no case, accents, articles, marks of vowels, quotes or end stops."""
    text = unicodedata.normalize("NFKD", fold_scripts(text)).casefold()
    text = "".join(char for char in text if not unicodedata.combining(char)).translate(_ARABIC_LETTERS)
    text = re.sub(r"\s+", " ", strip_quotes(text)).strip()
    return _ARTICLES.sub("", text)
