"""`genie plan verify`: a plan file checked as a daemon checks it, with the constants beside it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from genie_schemas.constants import ConstantFiles, digest
from genie_schemas.errors import GenieError, GenieErrors, Place
from genie_schemas.plan import Constant, ExecutionPlan
from genie_schemas.reader import load_plan
from genie_schemas.types import parse_type
from genie_schemas.verify import FEATURES, verify

__all__ = ["Verified", "check_plan", "verify_file"]

MAX_ERRORS = 20


@dataclass(frozen=True)
class Verified:
    """A plan that verified; `checked` says whether its constants' bytes were compared."""

    path: Path
    plan: ExecutionPlan
    constants: int
    constant_bytes: int
    checked: bool


def check_plan(plan: ExecutionPlan) -> None:
    """`verify`, after a look at what the plan requires of its executor.

    Raises GenieErrors: GEN0319 for each feature that this version does not have (its rules are
    unknown here, so nothing else is checked), else what `verify` raises.
    """
    missing = [feature for feature in plan.requires if feature not in FEATURES]
    if missing:
        raise GenieErrors(
            [
                GenieError(
                    "GEN0319",
                    f"the plan requires {feature!r}, which this version of Genie cannot do",
                    Place(path="requires"),
                    f"it can do: {', '.join(FEATURES)}",
                    "upgrade Genie, or compile without what needs the feature",
                )
                for feature in missing
            ]
        )
    verify(plan)


def verify_file(path: Path, *, constants: bool = True) -> Verified:
    """Check the plan at `path` and, with `constants`, every tensor that it names.

    Raises GenieError or GenieErrors, each naming the file: what `load_plan` and `check_plan` raise,
    GEN0315 (weights file missing), GEN0316 (a tensor is not what the plan says), GEN0317 (a path
    that leaves the folder).
    """
    plan = load_plan(path)
    try:
        check_plan(plan)
    except GenieErrors as errors:
        raise GenieErrors([_in_file(e, path) for e in errors.errors]) from None
    if constants:
        problems = _constant_errors(plan, path)
        if problems:
            raise GenieErrors(problems[:MAX_ERRORS])
    total = sum(c.bytes for c in plan.constants.values())
    return Verified(path, plan, len(plan.constants), total, constants)


def _in_file(error: GenieError, path: Path) -> GenieError:
    place = error.place or Place()
    return dataclasses.replace(error, place=dataclasses.replace(place, file=str(path)))


def _constant_errors(plan: ExecutionPlan, path: Path) -> list[GenieError]:
    """What is wrong with the constants: one error for a file that cannot be read at all."""
    errors: dict[str, GenieError] = {}
    unreadable: set[str] = set()
    with ConstantFiles(path.parent) as files:
        for name, constant in plan.constants.items():
            file = constant.source.partition("#")[0]
            if file in unreadable:
                continue
            try:
                entry = files.entry(constant.source)
            except GenieError as error:
                # What comes again for the next tensor concerns the whole file: said once.
                if str(error) in errors:
                    unreadable.add(file)
                errors[str(error)] = error
                continue
            kind = parse_type(constant.type)
            if entry.dtype != kind.dtype or entry.end - entry.start != constant.bytes:
                errors[name] = _differs(name, constant, path, "its dtype or size is another one")
            elif digest(files.view(constant.source)) != constant.digest:
                errors[name] = _differs(name, constant, path, "its bytes have another digest")
    return list(errors.values())


def _differs(name: str, constant: Constant, path: Path, cause: str) -> GenieError:
    file = constant.source.partition("#")[0]
    return GenieError(
        "GEN0316",
        f"the constant {name!r} in {file} is not the one that the plan names",
        Place(file=str(path), path=f"constants.{name}"),
        cause,
        "the weights file was changed or swapped: compile again, or fetch it anew",
    )
