"""What bounds a node: every wait and every size that a client can influence has a limit here."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one node. Times in seconds, sizes in bytes.

    A session whose client sent no heartbeat for `lease` is ended: its runs are cancelled and its
    memory is freed, at most `lease` + 1 s after the client went away. A prepared run that is not
    started within `start_lease` is released. `run_seconds` bounds a run whose caller gave no
    deadline; `admission_seconds` how long it may wait for memory, `constant_seconds` how long a
    constant may. Recorded results are kept until they exceed `ledger_bytes` together or
    `ledger_age` each. A broken upload of constants can be resumed for `upload_seconds`.
    """

    sessions: int = 64
    plans: int = 256
    runs_per_session: int = 64
    calls_per_session: int = 64
    plan_bytes: int = 64 * MIB
    plan_ops: int = 1_000_000
    io_bytes: int = 64 << 30
    lease: float = 5.0
    start_lease: float = 30.0
    heartbeat_seconds: float = 0.25
    admission_seconds: float = 60.0
    constant_seconds: float = 10.0
    run_seconds: float = 600.0
    drain_seconds: float = 30.0
    executor_seconds: float = 60.0
    upload_seconds: float = 300.0
    ledger_bytes: int = 1 << 30
    ledger_age: float = 7 * 86400.0
