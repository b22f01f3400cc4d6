"""What a run id stands for, and how the ledger says that it must not, or cannot, be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genie_schemas.errors import GenieError, Place


@dataclass(frozen=True)
class RunKey:
    """What a run id stands for: it names one plan, entry point and set of inputs for ever."""

    run_id: str
    plan_digest: str
    entrypoint: str
    inputs_digest: str


def check_same(row: Mapping[str, Any], key: RunKey) -> None:
    """GEN0410 when the id means something else, GEN0411 when its result was evicted."""
    differs = [
        label
        for label, column, value in (
            ("plan", "plan_digest", key.plan_digest),
            ("entry point", "entrypoint", key.entrypoint),
            ("inputs", "inputs_digest", key.inputs_digest),
        )
        if row[column] != value
    ]
    if differs:
        raise GenieError(
            "GEN0410",
            f"the run id {key.run_id!r} was used before with {_other(differs)}",
            cause="a run id names one result for ever",
            remedy="choose another --run-id, or give the same plan and inputs again",
            context={"run_id": key.run_id, "differs": differs},
        )
    if row["state"] == "evicted":
        raise GenieError(
            "GEN0411",
            f"the result of run {key.run_id!r} is recorded as published but no longer kept",
            cause="it was evicted to keep the ledger within its configured size and age",
            remedy="choose a new --run-id to run anew",
            context={"run_id": key.run_id},
        )


def _other(differs: list[str]) -> str:
    """What differs, in words: "other inputs", "another plan", "other plan and inputs"."""
    if len(differs) > 1:
        return "other " + " and ".join(differs)
    return "other inputs" if differs[0] == "inputs" else f"another {differs[0]}"


def fenced(key: RunKey) -> GenieError:
    """The error for an attempt that a later one has replaced."""
    return GenieError(
        "GEN0415",
        f"run {key.run_id!r} was taken over by a later attempt; this one published nothing",
        context={"run_id": key.run_id},
    )


def storage_error(folder: Path, error: Exception) -> GenieError:
    """GEN0507 for a database that is damaged, GEN0506 for a disk that does not store."""
    text = str(error)
    if isinstance(error, sqlite3.DatabaseError) and (
        "malformed" in text or "not a database" in text
    ):
        return GenieError(
            "GEN0507",
            "the ledger's database is damaged",
            Place(file=str(folder / "ledger.sqlite")),
            text,
            "restore it from a backup, or start with another --state-dir",
        )
    return GenieError(
        "GEN0506",
        "the ledger cannot be written",
        Place(file=str(folder)),
        text,
        "free space (or mend the disk) under the state directory, then run again",
    )
