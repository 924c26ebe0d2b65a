"""A coarse guess of a text's language from its script and its commonest words; for logs, filters and metrics."""

from __future__ import annotations

SAMPLE = 600
# Ranges of Unicode code points that decide a language (or a group of them) on their own.
SCRIPTS = (
    ("ja", 0x3040, 0x30FF),
    ("ko", 0xAC00, 0xD7AF),
    ("zh", 0x4E00, 0x9FFF),
    ("ar", 0x0600, 0x06FF),
    ("he", 0x0590, 0x05FF),
    ("ru", 0x0400, 0x04FF),
    ("el", 0x0370, 0x03FF),
    ("hi", 0x0900, 0x097F),
    ("th", 0x0E00, 0x0E7F),
)
COMMON_WORDS = {
    "en": frozenset(
        ["the", "of", "and", "to", "in", "is", "that", "for", "with", "what", "how", "are", "this", "which", "a"]
    ),
    "es": frozenset(
        ["el", "la", "los", "las", "de", "que", "y", "en", "un", "una", "por", "con", "para", "cómo", "qué", "es"]
    ),
    "de": frozenset(
        ["der", "die", "das", "und", "ist", "ein", "eine", "nicht", "mit", "wie", "was", "für", "auf", "zu", "den"]
    ),
    "fr": frozenset(
        ["le", "la", "les", "des", "et", "est", "une", "un", "que", "pour", "dans", "comment", "quel", "du", "il"]
    ),
    "it": frozenset(
        ["il", "lo", "gli", "di", "che", "è", "una", "un", "per", "con", "come", "cosa", "nel", "della", "sono"]
    ),
    "pt": frozenset(
        ["o", "os", "as", "de", "que", "e", "em", "um", "uma", "para", "com", "como", "não", "é", "do", "da"]
    ),
    "nl": frozenset(["de", "het", "een", "en", "van", "is", "niet", "met", "voor", "hoe", "wat", "dat", "op", "zijn"]),
}


def guess_language(text: str) -> str:
    """ISO 639-1 code, `other` for a script not listed, `und` where there is too little to tell."""
    sample = text[:SAMPLE]
    counts: dict[str, int] = {}
    letters = 0
    for character in sample:
        if character.isalpha():
            letters += 1
            point = ord(character)
            if point > 0x250:
                name = next((code for code, low, high in SCRIPTS if low <= point <= high), "other")
                counts[name] = counts.get(name, 0) + 1
    if letters == 0:
        return "und"
    # Japanese mixes kana with Chinese characters: a little kana decides.
    if counts.get("ja", 0) * 10 >= letters:
        return "ja"
    if counts:
        code, most = max(counts.items(), key=lambda item: item[1])
        if most * 4 >= letters:
            return code
    words = sample.lower().split()
    hits = {code: sum(word in common for word in words) for code, common in COMMON_WORDS.items()}
    code, most = max(hits.items(), key=lambda item: item[1])
    return code if most >= 2 else "und"
