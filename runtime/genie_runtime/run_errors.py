"""How runs fail, in words."""

from __future__ import annotations

from collections.abc import Mapping

from genie_runtime.share import ShareRun
from genie_schemas.errors import GenieError, Place


def transfer_failed(name: str, error: Exception) -> GenieError:
    """GEN0418 for a transfer, an input or an output, with what the data plane says of it."""
    convert = getattr(error, "to_genie_error", None)
    cause = str(convert().message) if convert is not None else str(error)
    code = getattr(error, "code", None)
    return GenieError(
        "GEN0418",
        f"the transfer of {name!r} failed",
        Place(path=name),
        f"{code}: {cause}" if code else cause,
        "run again; with a --run-id nothing is published twice",
        {"transfer": name, "code": code},
    )


def late(run_id: str, shares: Mapping[str, ShareRun]) -> GenieError:
    """GEN0414: the deadline passed; tells what was still going on."""
    waiting = [f"{d} ({s.state})" for d, s in shares.items() if s.state != "finished"]
    return GenieError(
        "GEN0414",
        f"run {run_id!r} passed its deadline",
        cause=f"still going on: {', '.join(waiting) or 'transfers'}",
        remedy="give a longer deadline, or look at what the devices are busy with",
        context={"run_id": run_id},
    )


def step_of(error: GenieError) -> str | None:
    """The step that an executor's error names as its place."""
    path = error.place.path if error.place is not None else None
    return path.removeprefix("steps.") if path else None


def attempted(error: GenieError, attempts: int) -> GenieError:
    """The error of the last attempt, with how many there were."""
    error.context = {**error.context, "attempts": attempts}
    return error
