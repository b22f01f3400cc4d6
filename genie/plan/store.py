"""Putting a plan and its constants on disk: atomically, and never over other bytes."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from genie_schemas import writer
from genie_schemas.constants import file_digest
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import ExecutionPlan


@dataclass(frozen=True)
class Written:
    """What was written: the plan, and its constants file with how it came there."""

    plan: Path
    constants: Path
    how: str
    """"written", "linked" (the user's own file, unchanged) or "kept" (it was there)."""


def write(plan: ExecutionPlan, constants: Path, out: Path) -> Written:
    """Write the plan to `out` and its constants beside it.

    The constants go first and the plan last, each by rename, so that a plan on disk always has its
    constants. Raises GenieError GEN0330 (cannot write) and GEN0331 (another file is in the way).
    """
    if out.is_dir():
        raise GenieError(
            "GEN0330",
            f"{out} is a folder",
            Place(file=str(out)),
            remedy="name the plan's file after -o, such as -o model.plan.json",
        )
    name = next((c.source.partition("#")[0] for c in plan.constants.values()), None)
    target = out.parent / name if name is not None else None
    how = "kept"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if target is not None:
            how = _put_constants(constants, target)
        write_text(out, writer.dumps(plan))
    except OSError as error:
        raise GenieError(
            "GEN0330",
            f"the plan cannot be written to {out}",
            Place(file=error.filename if isinstance(error.filename, str) else str(out)),
            error.strerror,
            "check the folder's permissions and the free space of its disk",
        ) from None
    return Written(out, target if target is not None else out, how)


def write_text(path: Path, text: str) -> None:
    """Replace a file's content at once: readers see the old or the new, never a part."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _put_constants(source: Path, target: Path) -> str:
    if target.exists() or target.is_symlink():
        if target.is_symlink() or file_digest(target) != file_digest(source):
            raise GenieError(
                "GEN0331",
                f"{target.name} is in the way: its content is not what its name says",
                Place(file=str(target)),
                "constants are named by their content and never overwritten with other bytes",
                "the file is damaged: remove it and compile again",
            )
        return "kept"
    if source.name == "constants.safetensors" and source.parent.parent == target.parent:
        os.chmod(source, 0o644)
        os.replace(source, target)
        return "written"
    try:
        # Hard links of files under another owner or on another disk are refused: copy then.
        os.link(source, target)
        return "linked"
    except OSError:
        temporary = target.with_name(f".{target.name}.part")
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
        return "written"
