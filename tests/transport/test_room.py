"""A post that waits for room in the socket goes on as soon as there is some, whoever else waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# One thread waits for a message that does not come, so that it sleeps on the connection; another
# posts more than the socket takes at once. The figures are what a small host may have.
PROGRAM = """
import threading, time
from pathlib import Path
from genie_transport import Listener, connect

Path("/proc/sys/net/ipv4/tcp_wmem").write_text("4096 16384 32768")
key = bytes(range(32))
with Listener.open("tcp://127.0.0.1:0") as listener:
    there = listener.expect("5" * 32, key, path="tcp")
    here = connect(listener.endpoint, "5" * 32, key, path="tcp")
    never = here.register(bytearray(64))
    waiting = here.arrival(never)
    threading.Thread(target=lambda: waiting.exception(60), daemon=True).start()
    slowest = 0.0
    for size in (100_000, 400_000) * 4:
        source, target = bytes(size), bytearray(b"x" * size)
        handle = there.register(target)
        time.sleep(0.05)
        begun = time.monotonic()
        sent = here.post(here.register(source), handle, deadline=60)
        while not sent.done():
            time.sleep(0.001)
        slowest = max(slowest, time.monotonic() - begun)
        assert sent.result(0) == size and target == source
    beat = 7.5  # seconds after which a silent peer speaks: what woke the sleeper before
    print("held up" if slowest > beat - 1 else "at once")
    here.close()
    there.close()
"""


@pytest.mark.root
def test_a_post_that_waits_for_room_is_not_held_up_by_who_waits_for_a_message(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    namespace = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$0" "$1"']
    done = subprocess.run(
        [*namespace, sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("at once\n", 0), done.stderr
