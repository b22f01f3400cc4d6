"""Start-up: `genie --help`, and a daemon until it accepts a session."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from genie.bench.measure import seconds
from genie.bench.report import Row, median_row
from genie.bench.starting import until_listening

SCRIPTS = Path(sys.executable).parent


def startup(quick: bool) -> list[Row]:
    """Rows startup/help and daemon/start, daemon/memory."""
    rounds = 5 if quick else 11

    def command(*argv: str) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    command(str(SCRIPTS / "genie"), "--help")
    helps = [
        seconds(lambda: command(str(SCRIPTS / "genie"), "--help")) * 1e3 for _ in range(rounds)
    ]
    bare = [seconds(lambda: command(sys.executable, "-c", "pass")) * 1e3 for _ in range(rounds)]
    starts, memory = [], []
    for _ in range(rounds):
        taken, resident = _daemon()
        starts.append(taken * 1e3)
        memory.append(resident / 1e6)
    return [
        median_row("startup/python", "wall_ms", "ms", bare),
        median_row("startup/help", "wall_ms", "ms", helps),
        median_row("daemon/start", "first_session_ms", "ms", starts),
        median_row("daemon/memory", "rss_before_first_plan", "MB", memory),
    ]


def _daemon() -> tuple[float, int]:
    """(seconds from spawn to the first session, resident bytes then) of a fresh daemon."""
    import psutil

    from genie.client import connect

    with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder:
        endpoint = f"unix://{folder}/d.sock"
        argv = [str(SCRIPTS / "genied"), "--listen", endpoint, "--state-dir", f"{folder}/state"]
        start = time.perf_counter()
        daemon = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Dialling a socket that is not there yet would time gRPC's retries, not the daemon.
            until_listening(Path(f"{folder}/d.sock"), daemon)
            session = connect(endpoint)
            taken = time.perf_counter() - start
            resident = int(psutil.Process(daemon.pid).memory_info().rss)
            session.close()
        finally:
            daemon.terminate()
            daemon.wait(20)
    return taken, resident
