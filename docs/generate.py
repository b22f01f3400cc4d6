"""Writes what the pages show of the program: docs/errors.md, and the diff in README.md.

python docs/generate.py           rewrite both (compiles the digits example twice)
python docs/generate.py errors    rewrite docs/errors.md only
python docs/generate.py --check   exit 1 when docs/errors.md is stale
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from genie_schemas.errors import CODES, CodeInfo, ExitCode

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/errors.md"
README = ROOT / "README.md"

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


# -- docs/errors.md ----------------------------------------------------------------------------


def errors_page() -> str:
    """The page of error codes as text."""
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


# -- the diff in README.md ---------------------------------------------------------------------


def _run(folder: Path, *command: str, status: int = 0) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != status:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def reviewed_change() -> tuple[str, str]:
    """What review and CI show when the stem of the digits model gets another activation.

    Returns:
        The `git diff` of its golden plan, and what `genie compile --check` prints.
    """
    golden = "golden/digits.plan.json"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "plans/digits", folder / "digits")
        (folder / "golden").mkdir()
        compiling = ("genie", "compile", "digits/model.py", "--spec", "digits/digits.yaml")
        _run(folder, *compiling, "-o", golden)
        _run(folder, "git", "init", "--quiet")
        _run(folder, "git", "add", "golden")
        model = folder / "digits/model.py"
        before = model.read_text(encoding="utf-8")
        stem = "nn.BatchNorm2d(width), nn.ReLU()"
        if before.count(stem) != 1:
            sys.exit(f"plans/digits/model.py has no single {stem}")
        after = before.replace(stem, stem.replace("ReLU", "GELU"))
        model.write_text(after, encoding="utf-8")
        said = _run(folder, *compiling, "--check", golden, status=3)
        _run(folder, *compiling, "-o", golden)
        return _run(folder, "git", "diff", "-U0", "--", golden), said


def with_change(readme: str, diff: str, said: str) -> str:
    """README.md's text with both blocks replaced."""
    command = "$ genie compile plans/digits/model.py --spec plans/digits/digits.yaml --check"
    said = f"{command} golden/digits.plan.json\n{said}"
    for mark, language, text in (("diff", "diff", diff), ("check", "text", said)):
        pattern = rf"(?<=<!-- {mark}: python docs/generate.py -->\n).*?(?=<!-- end -->)"
        block = f"```{language}\n{text}```\n".replace("\\", r"\\")
        readme, count = re.subn(pattern, block, readme, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"README.md has {count} places for the {mark}")
    return readme


def main(argv: list[str]) -> int:
    """Write the pages, or with `--check` only compare one; the exit status."""
    text = errors_page()
    if argv == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write("docs/errors.md is stale; run: python docs/generate.py\n")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    if argv != ["errors"]:
        readme = README.read_text(encoding="utf-8")
        README.write_text(with_change(readme, *reviewed_change()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
