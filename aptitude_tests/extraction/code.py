"""The Python source a reply commits to."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

from aptitude_tests.extraction.cleaning import strip_thoughts

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<mark>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n"
    r"(?P<body>.*?)(?:^[ \t]*(?P=mark)[ \t]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = {"", "py", "python", "python3", "python2"}
_MAX_CHARS = 50_000
_MAX_TRIES = 20
_CODE_LINE = re.compile(r"^(?:def |class |import |from \w|@|async def )")


def extract_code(reply: str, function: str = "solve") -> str | None:
    """Source that defines `function`; None where the reply holds no such code.

    The last block that defines it counts; definitions in other blocks that it lacks are put before it. A block that
    names the function but does not parse is returned as it is: that is a wrong answer, not a missing one.
    """
    text = strip_thoughts(reply.replace("\r\n", "\n"))[:_MAX_CHARS]
    blocks = [
        textwrap.dedent(match["body"]).strip("\n").rstrip()
        for match in _FENCE.finditer(text)
        if match["language"].lower() in _PYTHON
    ]
    for i in range(len(blocks) - 1, -1, -1):
        if function in _defined(blocks[i]):
            return _with_helpers(blocks, i)
    for block in reversed(blocks):
        if re.search(rf"\bdef\s+{re.escape(function)}\b", block):
            return block
    return _bare_code(text, function) if not blocks else None


def _defined(source: str) -> set[str]:
    """Names that the source defines at its top level; empty where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return set()
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def _with_helpers(blocks: list[str], chosen: int) -> str:
    """The chosen block, preceded by blocks whose definitions it uses and does not hold."""
    source, known = blocks[chosen], _defined(blocks[chosen])
    for i in range(chosen + _MAX_TRIES, max(-1, chosen - _MAX_TRIES), -1):
        names = _defined(blocks[i]) if i < len(blocks) else set()
        used = any(re.search(rf"\b{re.escape(name)}\b", source) for name in names)
        if i != chosen and names and not names & known and used:
            source, known = f"{blocks[i]}\n\n{source}", known | names
    return source


def _bare_code(text: str, function: str) -> str | None:
    """Code without a fence: from its first line on, without the chatter that follows it."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if _CODE_LINE.match(line)][:_MAX_TRIES]
    for start in starts:
        end = len(lines)
        for _ in range(_MAX_TRIES):
            source = "\n".join(lines[start:end]).rstrip()
            if function in _defined(source):
                return source
            fault = _faulty_line(source)
            if fault is None or fault < 2:
                break
            end = start + min(fault - 1, end - start - 1)
    return None


def _faulty_line(source: str) -> int | None:
    """The line, from 1, where the source stops being Python; None where it parses or the line is unknown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
    except SyntaxError as error:
        return error.lineno
    except (ValueError, MemoryError, RecursionError):
        return None
    return None
