"""What every test runs under: no network but loopback, and no state outside the test's own folder."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

LOOPBACK = ("127.", "::1", "localhost")
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise OSError(f"a test tried to reach {address!r}; only loopback is allowed")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting or provider key of the machine reaches a test; state goes to its own folder."""
    import os

    for name in list(os.environ):
        if name.startswith("ORBWEAVER_") or name.endswith("_API_KEY") or name == "PORT":
            monkeypatch.delenv(name)
    monkeypatch.setenv("ORBWEAVER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with recorded outcomes; tests that need it skip where it is absent."""
    if not (SHARED / "data" / "routing" / "outcomes.parquet").is_file():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED / "data"
