"""A headless Chromium driven over its DevTools protocol: open a page, look, type, click, take a picture."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--mute-audio",
    "--remote-debugging-port=0",
)


class Page:
    """One tab. `problems` holds what the page complained about: script errors, blocked or failed loads."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._next = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one DevTools command and wait for its result."""
        self._next += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._next] = future
        await self._socket.send_str(json.dumps({"id": self._next, "method": method, "params": params}))
        answer = await asyncio.wait_for(future, 30)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load an address in a window of this size."""
        await self.resize(width, height)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.command("Emulation.setEmulatedMedia", features=theme)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.command(f"{domain}.enable")
        await self.command("Page.navigate", url=address)
        await self.until("document.readyState === 'complete'")

    async def resize(self, width: int, height: int) -> None:
        """Change the window's size, in CSS pixels."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        result = await self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    async def until(self, script: str, *, timeout_s: float = 20.0) -> None:
        """Wait until an expression is true. Raises AssertionError with what the page shows instead."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self.run(f"Boolean({script})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            shown = await self.run("document.body.innerText")
            raise AssertionError(f"never true: {script}\n{shown}\n{self.problems}") from None

    async def text(self, selector: str) -> str:
        """The visible text of the first match."""
        return str(await self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def click(self, selector: str) -> None:
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def fill(self, selector: str, text: str) -> None:
        """Set a field as if it had been typed."""
        await self.run(
            f"(() => {{ const field = document.querySelector({json.dumps(selector)}); field.value = {json.dumps(text)};"
            " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    async def press(self, key: str, *, text: str | None = None) -> None:
        """Press and release one key, such as Tab or Enter, where the focus is."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        extra: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0)}
        down = {"type": "keyDown", **extra, **({"text": text} if text else {})}
        await self.command("Input.dispatchKeyEvent", **down)
        await self.command("Input.dispatchKeyEvent", type="keyUp", **extra)

    async def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Save a PNG of the page (`whole`) or of the window."""
        result = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(result["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                future = self._waiting.pop(data["id"], None)
                if future is not None and not future.done():
                    future.set_result(data)
            else:
                self._note(data["method"], data["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


@asynccontextmanager
async def chromium() -> AsyncIterator[Page]:
    """A fresh browser with one empty tab, ended and wiped afterwards."""
    assert CHROMIUM is not None, "chromium is not installed"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = await _debugging_port(Path(folder), process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tabs = await answer.json()
                address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                page = Page(await session.ws_connect(address, max_msg_size=0))
                try:
                    yield page
                finally:
                    await page.close()
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 10)


async def _debugging_port(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Chromium writes the port it took into its profile folder."""
    note = folder / "DevToolsActivePort"
    async with asyncio.timeout(40):
        while not (note.exists() and note.read_text().count("\n") >= 1):
            if process.poll() is not None:
                raise RuntimeError(f"chromium ended with status {process.returncode}")
            await asyncio.sleep(0.05)
    return int(note.read_text().splitlines()[0])
