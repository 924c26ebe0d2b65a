"""A small indexed-colour canvas that writes PNG without any imaging package, so that pixels are the same everywhere."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import TypeAlias

from aptitude_tests.item import Picture

Colour: TypeAlias = int
WHITE, BLACK, RED, GREEN, BLUE, ORANGE, PURPLE, GREY = range(8)
_PALETTE = bytes.fromhex("ffffff 000000 d62728 2ca02c 1f5fb4 ff9f1c 8e44ad b8b8b8")
GLYPH_WIDTH, GLYPH_HEIGHT = 5, 7


@cache
def glyphs() -> dict[str, tuple[str, ...]]:
    """The bitmap font: character -> 7 rows of 5 cells, `#` is ink."""
    text = (Path(__file__).parent.parent / "tasks" / "texts" / "font5x7.txt").read_text("utf-8")
    found = {}
    for block in text.strip("\n").split("\n\n"):
        head, *rows = block.splitlines()
        found[head] = tuple(row.ljust(GLYPH_WIDTH, ".") for row in rows)
    found[" "] = ("." * GLYPH_WIDTH,) * GLYPH_HEIGHT
    return found


class Canvas:
    """Pixels in eight colours; (0, 0) is the top left, drawing outside is cut off."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.pixels = bytearray(width * height)

    def rectangle(self, left: int, top: int, width: int, height: int, colour: Colour) -> None:
        """A filled rectangle."""
        for y in range(max(0, top), min(self.height, top + height)):
            start, end = max(0, left), min(self.width, left + width)
            if start < end:
                self.pixels[y * self.width + start : y * self.width + end] = bytes([colour]) * (end - start)

    def disc(self, x: int, y: int, radius: int, colour: Colour) -> None:
        """A filled circle around (x, y)."""
        for dy in range(-radius, radius + 1):
            half = int((radius * radius - dy * dy) ** 0.5)
            self.rectangle(x - half, y + dy, 2 * half + 1, 1, colour)

    def triangle(self, x: int, y: int, radius: int, colour: Colour) -> None:
        """A filled triangle that points up, with (x, y) in its middle."""
        for row in range(2 * radius + 1):
            self.rectangle(x - row // 2, y - radius + row, row // 2 * 2 + 1, 1, colour)

    def write(self, left: int, top: int, text: str, colour: Colour = BLACK, scale: int = 2) -> None:
        """Capital letters, digits and a few marks; a character is 6 x `scale` wide.

        Raises:
            KeyError: a character that the font lacks.
        """
        for position, char in enumerate(text):
            for y, row in enumerate(glyphs()[char]):
                for x, cell in enumerate(row):
                    if cell == "#":
                        across = left + (position * (GLYPH_WIDTH + 1) + x) * scale
                        self.rectangle(across, top + y * scale, scale, scale, colour)

    def picture(self) -> Picture:
        """The canvas as a PNG data URL with a digest of its pixels."""
        rows = b"".join(b"\0" + bytes(self.pixels[y * self.width : (y + 1) * self.width]) for y in range(self.height))
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 3, 0, 0, 0)
        chunks = (b"IHDR", header), (b"PLTE", _PALETTE), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
        digest = hashlib.sha256(header + _PALETTE + bytes(self.pixels)).hexdigest()[:32]
        return Picture("data:image/png;base64," + base64.b64encode(data).decode(), digest)
