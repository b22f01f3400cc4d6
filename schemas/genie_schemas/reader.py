"""Reading a plan: header first, then strict JSON, then the schema, then the digest.

`genie_schemas.verify` checks what the fields say of each other; it takes what comes from here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from genie_schemas import canonical, writer
from genie_schemas.errors import GenieError, GenieErrors, Place
from genie_schemas.plan import FORMAT, FORMAT_VERSION, ExecutionPlan

MAX_BYTES = 64 * 1024 * 1024
MAX_ERRORS = 20

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")


def read_plan(text: str | bytes, file: str | None = None) -> ExecutionPlan:
    """Parse a plan's text and check its header, schema and digest.

    Raises GenieError: GEN0301 no strict JSON, GEN0302 another format, GEN0305 newer than this
    reader, GEN0303 against the schema (all places at once), GEN0304 wrong digest, GEN0314 too big.
    """
    data = parse(text, file)
    check_header(data, file)
    try:
        plan = ExecutionPlan.model_validate(data)
    except ValidationError as error:
        raise _schema_errors(error, file) from None
    found = writer.plan_digest(data)
    if found != plan.plan_digest:
        raise GenieError(
            "GEN0304",
            "the plan's content does not match its digest",
            Place(file=file, path="plan_digest"),
            f"the file says {plan.plan_digest[:23]}…, its content gives {found[:23]}…",
            "the file was edited or damaged: compile again, or restore it from version control",
        )
    return plan


def load_plan(path: Path) -> ExecutionPlan:
    """`read_plan` of a file; GEN0300 when it cannot be read."""
    return read_plan(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """The bytes of a plan file within the size limit; GEN0300 or GEN0314."""
    try:
        with path.open("rb") as handle:
            raw = handle.read(MAX_BYTES + 1)
    except OSError as error:
        raise GenieError(
            "GEN0300",
            f"the plan {path.name} cannot be read",
            Place(file=str(path)),
            error.strerror,
            "name a file that `genie compile` wrote",
        ) from None
    return raw


def parse(text: str | bytes, file: str | None = None) -> dict[str, Any]:
    """Strict JSON of a plan's text as plain values; GEN0301 or GEN0314."""
    if len(text) > MAX_BYTES:
        raise GenieError(
            "GEN0314",
            f"the plan is larger than {MAX_BYTES // 2**20} MiB",
            Place(file=file),
            remedy="split the model into several plans",
        )
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        data = canonical.loads(decoded)
        if not isinstance(data, dict):
            raise canonical.StrictJsonError("the document is no object")
    except (canonical.StrictJsonError, UnicodeDecodeError) as error:
        line = getattr(error, "line", None)
        raise GenieError(
            "GEN0301",
            "the plan is no strict JSON document",
            Place(file=file, line=line, column=getattr(error, "column", None)),
            str(error),
            "the file is cut or edited: compile again, or restore it from version control",
        ) from None
    return data


def check_header(data: dict[str, Any], file: str | None = None) -> None:
    """Check format and versions before anything else is looked at; GEN0302 or GEN0305."""
    if data.get("format") != FORMAT:
        raise GenieError(
            "GEN0302",
            "the file is no execution plan",
            Place(file=file, path="format"),
            f'its "format" is {str(data.get("format"))[:60]!r}, not {FORMAT!r}',
            "name a file that `genie compile` wrote",
        )
    versions = {}
    for key in ("format_version", "min_reader"):
        match = _VERSION.fullmatch(str(data.get(key)))
        if match is None:
            raise GenieError(
                "GEN0303",
                f"{key} is no version such as 1.0",
                Place(file=file, path=key),
                remedy="compile the plan again",
            )
        versions[key] = (int(match[1]), int(match[2]))
    mine = tuple(int(p) for p in FORMAT_VERSION.split("."))
    if versions["min_reader"] > mine:
        raise GenieError(
            "GEN0305",
            f"the plan needs a reader of format {data['min_reader']}; "
            f"this one reads up to {FORMAT_VERSION}",
            Place(file=file, path="min_reader"),
            f"it was written as format {data['format_version']} by a newer compiler",
            "upgrade with `pip install --upgrade genie-plan`, or compile with this version",
        )


def _schema_errors(error: ValidationError, file: str | None) -> GenieErrors:
    found = []
    for item in error.errors(include_url=False)[:MAX_ERRORS]:
        path = ""
        for part in item["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        found.append(_schema_error(item, path, file))
    return GenieErrors(found)


def _schema_error(item: ErrorDetails, path: str, file: str | None) -> GenieError:
    """One error of pydantic's in our words; a source that is no bare file name has its own code."""
    place = Place(file=file, path=path)
    if item["loc"][0] == "constants" and item["loc"][-1] == "source":
        return GenieError(
            "GEN0317",
            "the weights of a constant are not named by a bare file name",
            place,
            f"{str(item['input'])[:80]!r} is not FILE.safetensors#TENSOR",
            "a plan names its weights beside it, by file name alone; do not run this plan",
        )
    text = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] == "extra_forbidden":
        text = "there is no such field"
    return GenieError(
        "GEN0303",
        f"{path}: {text}",
        place,
        remedy="compile the plan again; `genie schema plan` prints what is allowed",
    )
