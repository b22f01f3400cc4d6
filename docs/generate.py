"""Writes docs/errors.md from the catalog that `genie explain` prints.

python docs/generate.py           rewrite the page
python docs/generate.py --check   exit 1 when it is stale
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from genie_schemas.errors import CODES, CodeInfo, ExitCode

PAGE = Path(__file__).parent / "errors.md"

AREAS = (
    ("Specs", 100, "the spec file, its templates and `--set`"),
    ("Command line", 130, "options, configuration files, and the process itself"),
    ("Models and capture", 200, "`genie compile` and `--compare`, which run the user's code"),
    ("Plans", 300, "reading, verifying and writing plans and their weights"),
    ("Runs", 400, "inputs, run ids, admission, outputs"),
    ("Executors", 450, "the processes that compute, and shared memory"),
    ("Daemons and authentication", 500, "endpoints, sessions, the ledger, credentials"),
    ("Transfers", 600, "the data plane"),
)
"""Title, first number and subject of each section, in order."""

MEANING = {
    ExitCode.OK: "it worked",
    ExitCode.FAILURE: "a failure that was handled: the model, the run, the machine",
    ExitCode.USAGE: "the command line or the inputs do not fit",
    ExitCode.DIFFERENCE: "a difference was found (`--check`, `--compare`, `plan diff`)",
    ExitCode.INVALID: "the spec, the plan or the weights are not valid",
    ExitCode.UNREACHABLE: "a daemon cannot be reached, or was lost",
    ExitCode.AUTHENTICATION: "credentials are missing or were refused",
    ExitCode.DEADLINE: "a deadline passed",
    ExitCode.VERSION: "version skew, or a plan that is too new or stale",
    ExitCode.INTERNAL: "a bug of Genie",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
}
"""What each exit status means, in the words of README and docs/cli.md."""


def page() -> str:
    """The whole page as text."""
    lines = [
        "# Error codes",
        "",
        "Written by `python docs/generate.py` from `schemas/genie_schemas/errors/catalog/`:"
        " do not edit.",
        "`genie explain CODE` prints the same text. A code is never reused or renumbered.",
        "",
        "| exit status | meaning |",
        "|---|---|",
        *(f"| {int(code)} | {meaning} |" for code, meaning in MEANING.items()),
        "",
    ]
    starts = [first for _, first, _ in AREAS[1:]] + [1000]
    for (title, first, subject), end in zip(AREAS, starts, strict=True):
        lines += [f"## {title}", "", f"GEN{first:04d} and up: {subject}.", ""]
        for info in CODES.values():
            if first <= int(info.code.removeprefix("GEN")) < end:
                lines += _entry(info)
    return "\n".join(lines)


def _entry(info: CodeInfo) -> list[str]:
    title = info.title[:1].upper() + info.title[1:]
    return [
        f"### {info.code}",
        "",
        f"**{title}** (exit {int(info.exit)})",
        "",
        *textwrap.wrap(_escaped(info.text), 100, break_long_words=False, break_on_hyphens=False),
        "",
    ]


def _escaped(text: str) -> str:
    """The text with `<` outside of code spans escaped, which Markdown would take for HTML."""
    parts = text.split("`")
    return "`".join(p if i % 2 else p.replace("<", "&lt;") for i, p in enumerate(parts))


def main(argv: list[str]) -> int:
    """Write the page, or with `--check` only compare it; the exit status."""
    text = page()
    if argv == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write("docs/errors.md is stale; run: python docs/generate.py\n")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
