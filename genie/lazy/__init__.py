"""The lazy device: unmodified eager programs on `torch.device("genie")`.

    import genie.lazy

    model.to("genie")(x.to("genie")).cpu()

Operators are recorded, not run. When the program looks at a value, what was recorded becomes an
ExecutionPlan, which runs in a session: embedded in this process, on the daemon that GENIE_ENDPOINT
names, or wherever `connect` says. Weights travel once; tensors stay on the device between runs.
"""

from __future__ import annotations

from genie.lazy._setup import (
    connect,
    explain,
    is_available,
    reset_stats,
    semantics,
    stats,
    synchronize,
    threads,
)

__all__ = [
    "connect",
    "explain",
    "is_available",
    "reset_stats",
    "semantics",
    "stats",
    "synchronize",
    "threads",
]
