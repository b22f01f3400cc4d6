"""Setting the device up, once for a process, and telling what it did."""

from __future__ import annotations

import atexit
import logging
import os
import time
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.backend_registration import (
    generate_methods_for_privateuse1_backend,
    rename_privateuse1_backend,
)

from genie.client.default import Target
from genie.lazy import _dense, _moves, _recurrent, _storages, device
from genie.lazy._counters import COUNTERS
from genie.lazy._host import Host
from genie.lazy._left import LEFT
from genie.lazy._modules import Modules
from genie.lazy._report import leave_at_exit
from genie.lazy._runner import Runner
from genie_schemas import optable
from genie_schemas.errors import GenieError

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


RECORDERS = ("auto", "native", "python")
"""What GENIE_LAZY_RECORDER can say: the extension where it is built, only it, or never it."""

_log = logging.getLogger("genie.lazy")


def _recorder() -> Any:
    wanted = os.environ.get("GENIE_LAZY_RECORDER") or "auto"
    if wanted not in RECORDERS:
        raise GenieError(
            "GEN0264",
            f"GENIE_LAZY_RECORDER is {wanted!r}",
            remedy=f"set it to one of {', '.join(RECORDERS)}, or leave it out",
        )
    why = "GENIE_LAZY_RECORDER asks for it"
    if wanted != "python":
        try:
            from genie.lazy import _lazy

            return _lazy
        except ImportError as error:
            if wanted == "native":
                raise GenieError(
                    "GEN0262",
                    "the lazy device's extension is not installed",
                    cause=str(error),
                    remedy="leave GENIE_LAZY_RECORDER out, and operators are recorded in Python; "
                    "or install torch first, then Genie with --no-build-isolation and "
                    "--config-settings=cmake.define.GENIE_LAZY=ON",
                ) from error
            why = f"the extension is not installed: {error}"
    from genie.lazy import _python

    _log.warning("operators are recorded in Python, which takes longer for each (%s)", why)
    return _python


_RECORDER = _recorder()
rename_privateuse1_backend("genie")
torch._register_device_module("genie", device)  # type: ignore[no-untyped-call]
generate_methods_for_privateuse1_backend(for_storage=False)
_dense.refuse_others()
_storages.install()
_recurrent.install()
_MODULES = Modules(_RECORDER.set_module)
_RUNNER = Runner(_RECORDER, _MODULES)
_HOST = Host(_RUNNER.fetch)
device.start(lambda: _HOST.generator, _RUNNER.flush)
_RECORDER.start(_RUNNER.fetch, _RUNNER.upload, _HOST, _RUNNER.flush, set(optable.names()))
_RECORDER.register_operators(LEFT)
_MODULES.install()
_moves.install(_MODULES.know)
register_optimizer_step_post_hook(_RUNNER.stepped)
leave_at_exit(lambda: stats())


@atexit.register
def _end() -> None:
    _RUNNER.close()
    # A backward pass leaves Python objects to autograd's thread of the device, which the end of the
    # interpreter would kill in the middle of letting them go: it gets the lock once more before.
    time.sleep(0.005)


def is_available() -> bool:
    """Whether the device can be used here; importing this module would have failed otherwise."""
    return True


def connect(endpoint: str | None = None) -> None:
    """Put the device on a daemon ("unix:///run/genie.sock", "host:port"), or into this process.

    Call it before the first tensor goes there; without it, what `genie.connect` was told last
    says where, or GENIE_ENDPOINT, and else the runtime is embedded. Raises GEN0263 when tensors
    lie there already, GEN05xx when the daemon does not answer.
    """
    _RUNNER.connect(Target(endpoint))


def runner() -> Runner:
    """What runs the traces of this process; for the benchmark."""
    return _RUNNER


def recorder() -> Any:
    """The recorder of this process: the extension, or what stands in for it in Python."""
    return _RECORDER


def modules() -> Modules:
    """What notes module boundaries in this process; for the benchmark."""
    return _MODULES


def threads() -> int:
    """Threads that the device's runtime computes with; opens the session."""
    return _RUNNER.session().links[0].threads


def synchronize() -> None:
    """Run what the program has asked for so far, and wait for it."""
    _RUNNER.flush()


def stats() -> dict[str, Any]:
    """What the device did since the program began.

    `ops_intercepted`, `graphs_run`, `graph_ops` (in all of them), `last_graph_ops`,
    `graph_cache_hits` and `_misses`, `shape_cache_*`, `host_fallbacks` (operators that the host
    carried out), `random_draws`, `uploads`, `upload_bytes`, `pending_ops`, and `synchronisations`:
    how often the program waited for a value; `explain` says where. `sync_points` and `fallbacks`
    have the lines and the operators, with the reasons.
    """
    names = (
        *("graphs_run", "graph_ops", "last_graph_ops", "graph_cache_hits", "graph_cache_misses"),
        *(
            "synchronisations",
            "host_fallbacks",
            "host_evaluations",
            "compositions",
            "random_draws",
            "uploads",
            "upload_bytes",
        ),
    )
    found: dict[str, Any] = dict(_RECORDER.counts())
    found |= {name: COUNTERS.totals[name] for name in names}
    found["pending_ops"] = _RECORDER.pending_ops()
    found["sync_points"] = [
        {"line": site.line, "why": site.what, "count": count}
        for site, count in COUNTERS.syncs.most_common()
    ]
    found["fallbacks"] = [
        {"op": op, "why": why, "count": count}
        for (op, why), count in COUNTERS.fallbacks.most_common()
    ]
    return found


def reset_stats() -> None:
    """Begin to count anew (the recorder's own counters go on)."""
    COUNTERS.reset()


def semantics() -> dict[str, Any]:
    """What the last call of a model was, by the same analysis as a compiled model's.

    The workload with confidence and evidence, the phase, the notes of every call and value, the
    components and what flows between them, as JSON values. What waits runs first. Weights are the
    parameters and buffers of modules that still exist; where there are none, the inputs that
    operators take as such. Raises GenieError GEN0426 when nothing has run.
    """
    from genie.semantics.export import analysis_json

    return analysis_json(_RUNNER.analysis())


def explain() -> str:
    """Why the program waited for the device, line by line, and what each line can do about it."""
    lines = [f"{site.line}: waited {n} × because {site.what}" for site, n in
             COUNTERS.syncs.most_common()]  # fmt: skip
    lines += [
        f"{op} ran on the host {n} ×: {why}" for (op, why), n in COUNTERS.fallbacks.most_common()
    ]
    if not lines:
        return "the program has not waited for the device"
    lines.append(
        "A value is looked at by .item(), .cpu(), print, bool() and comparisons in `if`: look at "
        "it after the loop, or every n-th time."
    )
    return "\n".join(lines)
