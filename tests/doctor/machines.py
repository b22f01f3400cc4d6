"""Machines for the probes to look at: a folder for /proc and /sys, scripts for the tools."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from genie.doctor import Check, Machine, diagnose


@dataclass(frozen=True)
class Bench:
    """A machine below a temporary folder, with nothing on it until a test puts it there."""

    folder: Path

    @property
    def machine(self) -> Machine:
        return Machine(
            root=self.folder / "root",
            path=str(self.folder / "bin"),
            python=str(self.folder / "bin" / "python"),
            state=self.folder / "state" / "genie",
        )

    def file(self, path: str, text: str = "") -> Path:
        """Write a file of the machine."""
        target = self.folder / "root" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def driver(self, device: str, name: str) -> None:
        """Link a device's folder to its driver's, as sysfs does."""
        self.file(f"/sys/drivers/{name}/bind")
        link = self.folder / "root" / device.lstrip("/") / "device" / "driver"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.folder / "root/sys/drivers" / name)

    def tool(self, name: str, script: str) -> None:
        """Install a shell script as a tool."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def python(
        self,
        *,
        version: str = "3.11.7",
        torch: dict[str, object] | str | None = None,
        grpc: str = "1.85.1",
        native: dict[str, str] | None = None,
    ) -> None:
        """An interpreter with these packages; a text for `torch` is what its import fails with.

        `native` says of each native module why it cannot be imported, "" for one that can.
        """
        if isinstance(torch, dict):
            torch_script = f"echo {shlex.quote(json.dumps(torch))}"
        else:
            error = torch or "ModuleNotFoundError: No module named 'torch'"
            torch_script = f"echo 'Traceback:' >&2; echo {shlex.quote(error)} >&2; exit 1"
        native_script = f"echo {shlex.quote(json.dumps(native))}" if native else "exit 1"
        answers = f"*genie_transport*) {native_script};; *torch*) {torch_script};; "
        answers += f"*grpc*) echo {grpc};; *) echo {version};;"
        self.tool("python", f'case "$3" in {answers} esac')

    def checks(self, *, strict: bool = False) -> dict[str, Check]:
        return {check.name: check for check in diagnose(self.machine, strict=strict)}
