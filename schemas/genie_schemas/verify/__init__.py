"""The plan verifier: the same code in the compiler, in `genie plan verify` and in the daemon.

`genie_schemas.reader` has checked header, schema and digest before; here, in order: names and
single assignment, entry points, definition before use and transfers, loops, operators, memory,
policies.
Each stage needs what the stages before it established, so the first stage with errors ends the
walk; all errors of that stage are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable

from genie_schemas import ragged, rng
from genie_schemas.control import FEATURE as CONTROL
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.plan import LOOP, STATE, ExecutionPlan
from genie_schemas.verify.dataflow import check_dataflow
from genie_schemas.verify.dims import entry_dims
from genie_schemas.verify.entries import check_entries
from genie_schemas.verify.loops import check_loops
from genie_schemas.verify.memory import check_memory, peak_bytes
from genie_schemas.verify.naming import check_naming
from genie_schemas.verify.operators import check_programs
from genie_schemas.verify.policies import check_policies

__all__ = ["FEATURES", "STAGES", "entry_dims", "peak_bytes", "verify"]

FEATURES = ("compute.aten", CONTROL, ragged.FEATURE, rng.FEATURE, STATE, LOOP)
"""What a plan may list in `requires` for this version to execute it."""

MAX_ERRORS = 20

STAGES: tuple[tuple[str, Callable[[ExecutionPlan], list[GenieError]]], ...] = (
    ("naming", check_naming),
    ("entries", check_entries),
    ("dataflow", check_dataflow),
    ("loops", check_loops),
    ("programs", check_programs),
    ("memory", check_memory),
    ("policies", check_policies),
)


def verify(plan: ExecutionPlan) -> None:
    """Check what the plan's fields say of each other.

    Raises GenieErrors with every error (up to 20) of the first stage that found any; codes
    GEN0306 … GEN0327, exit status 4.
    """
    for _, check in STAGES:
        errors = check(plan)
        if errors:
            raise GenieErrors(errors[:MAX_ERRORS])
