"""The result of one probe."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Check", "optional", "required"]


@dataclass(frozen=True)
class Check:
    """One line of `genie doctor`.

    `found` is what the machine has and `required` what Genie asks for, both as text. `ok` is False
    only for what stops Genie from working; a missing optional part is `present=False` and keeps
    `ok`, until `--strict` asks for everything. `remedy` is the one command that mends it; None when
    nothing is to mend, or when no command can (a GPU that is not there).
    """

    name: str
    found: str
    required: str
    ok: bool
    remedy: str | None
    present: bool = True

    def strict(self) -> Check:
        """The same check where optional parts are required."""
        return replace(self, ok=self.present, required=self.required.removeprefix("optional: "))

    def to_json(self) -> dict[str, str | bool | None]:
        """The fields of the CLI contract, in its order."""
        return {
            "name": self.name,
            "found": self.found,
            "required": self.required,
            "ok": self.ok,
            "remedy": self.remedy,
        }


def required(name: str, found: str, needs: str, fine: bool, remedy: str | None) -> Check:
    """A check that must hold; `remedy` is shown when it does not."""
    return Check(name, found, needs, fine, None if fine else remedy, fine)


def optional(name: str, found: str, needs: str, fine: bool, remedy: str | None) -> Check:
    """A check that widens what Genie can do; missing, it fails only under `--strict`."""
    return Check(name, found, f"optional: {needs}", True, None if fine else remedy, fine)
