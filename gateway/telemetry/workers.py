"""Several worker processes behind one port answer `/metrics` and the dashboard as one gateway.

Each worker listens on a Unix socket in a folder that only this user may enter, named after their common parent.
Whichever worker is asked by a client asks the others in turn; nothing is exchanged while nobody looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

ANSWER_WITHIN_S: Final = 2.0
Answers = Mapping[str, Callable[[], Awaitable[bytes]]]


def group_folder(parent: int) -> Path:
    """Where the workers of one parent process meet: short enough for a socket's address, and private."""
    return Path(tempfile.gettempdir()) / f"orbweaver-{os.getuid()}" / str(parent)


class Workers:
    """This worker among its siblings.

    Args:
        folder: where they meet; None for a gateway of a single process, which has no siblings.
        name: of this worker, unique among them.
        answers: what the others may ask for, by a word.
    """

    def __init__(self, folder: Path | None, name: str, answers: Answers) -> None:
        self.name = name
        self._folder = folder
        self._answers = answers
        self._server: asyncio.Server | None = None

    @property
    def several(self) -> bool:
        """Whether there may be siblings."""
        return self._folder is not None

    async def start(self) -> None:
        """Listen for siblings. A folder that cannot be used is logged: this worker then speaks for itself alone."""
        if self._folder is None:
            return
        try:
            prepare_folder(self._folder)
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._reply, self._path)
        except OSError as error:
            log.warning("Workers cannot meet in %s (%s): each shows only its own figures.", self._folder, error)
            self._folder = None

    async def close(self) -> None:
        """Leave the others."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def ask(self, word: str) -> dict[str, bytes]:
        """The answers of all siblings that are alive, by their names; the silent ones are left out."""
        if self._folder is None:
            return {}
        sockets = [path for path in self._folder.glob("*.sock") if path != self._path]
        found = await asyncio.gather(*(_ask_one(path, word) for path in sockets))
        return {path.stem: answer for path, answer in zip(sockets, found, strict=True) if answer is not None}

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return self._folder / f"{self.name}.sock"

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                word = (await reader.readline()).decode("utf-8", "replace").strip()
            answer = self._answers.get(word)
            if answer is not None:
                writer.write(await answer())
                await writer.drain()
        except (OSError, TimeoutError) as error:
            log.info("A sibling worker went away while it was answered: %s", error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _ask_one(path: Path, word: str) -> bytes | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(word.encode() + b"\n")
                return await reader.read() or None
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except ConnectionRefusedError:
        await asyncio.to_thread(path.unlink, missing_ok=True)  # left behind by a worker that was killed
    except (OSError, TimeoutError) as error:
        log.info("The worker %s did not answer: %s", path.stem, error)
    return None


def prepare_folder(folder: Path) -> None:
    """Make the folder, private to this user, and clear away those of parents that no longer run.

    Raises:
        PermissionError: somebody else owns it or may enter it.
    """
    home = folder.parent
    for place in (home, folder):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{place} is not a private folder of this user")
    for other in home.iterdir():
        if other.name.isdigit() and not _runs(int(other.name)):
            shutil.rmtree(other, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
