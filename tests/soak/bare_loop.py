"""The reference for the soak's event-loop lag: a loop with nothing to do, in a process of its own, on the same machine.

What it lags is the machine's doing: other processes on its cores, and time that a hypervisor takes.
"""

from __future__ import annotations

import asyncio
import sys
import time

INTERVAL_S = 0.05


async def lags(seconds: float) -> list[float]:
    """By how many seconds each sleep overran, ascending."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        due = time.monotonic() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        found.append(max(time.monotonic() - due, 0.0))
    return sorted(found)


async def measured(seconds: float) -> float:
    """99th percentile in seconds of such a loop over so many seconds, measured in another process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.bare_loop", str(seconds), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds + 60):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return float(printed)


if __name__ == "__main__":
    all_lags = asyncio.run(lags(float(sys.argv[1])))
    sys.stdout.write(f"{all_lags[int(0.99 * len(all_lags))]:.4f}\n")
