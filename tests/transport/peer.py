"""A peer in a process of its own: serves one session over a Unix socket until it is ended.

    python -m tests.transport.peer ENDPOINT MODE PATH

`sink` registers a buffer of the size read from stdin and prints its handle as JSON; `source`
reads a handle as JSON and posts zeros to it.
"""

from __future__ import annotations

import json
import sys

from genie_transport import DMAHandle, Limits, connect
from tests.transport.support import KEY

LIMITS = Limits(chunk_bytes=65536, window_bytes=1 << 20, stall_timeout=60.0)


def main() -> None:
    endpoint, mode, path = sys.argv[1:]
    manager = connect(endpoint, "s", KEY, path=path, trusted=True, limits=LIMITS)
    for line in sys.stdin:
        if mode == "sink":
            handle = manager.register(bytearray(int(line)))
            print(json.dumps(handle.to_json()), flush=True)
        else:
            dst = DMAHandle.from_json(json.loads(line))
            manager.post(manager.register(bytes(dst.length)), dst)
            print("posted", flush=True)


if __name__ == "__main__":
    main()
