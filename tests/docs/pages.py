"""Reading the pages: their code blocks, tables, links and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from genie.cli.main import cli
from genie_runtime.main import command as genied

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"])
LINKED = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "plans/README.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block; `line` is that of its first line of text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name(page: Path) -> str:
    """The page's path in the checkout."""
    return page.relative_to(ROOT).as_posix()


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(*languages: str) -> list[Block]:
    """The fenced blocks of all pages in these languages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(name(page), line, match[1], match[2]))
    return [block for block in found if block.language in languages]


def without_fences(text: str) -> str:
    """A page's text without its fenced blocks."""
    return _FENCE.sub("", text)


def section(page: str, title: str) -> str:
    """The text below a heading, down to the next heading of its level or above."""
    marks, _, _ = title.partition(" ")
    text = read(page)
    start = text.index(f"\n{title}\n")
    end = re.compile(rf"^#{{1,{len(marks)}}} ", re.MULTILINE).search(text, start + len(title) + 2)
    return text[start : end.start() if end else None]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in a text, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = [i for i, row in enumerate(cells) if all(re.fullmatch(r"-+", c) for c in row)]
    heads = {i - 1 for i in rules}
    return [row for i, row in enumerate(cells) if i not in rules and i not in heads]


def code_spans(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def commands(page: Path) -> Iterator[str]:
    """Every `genie` or `genied` command line on a page, in blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    for line in text.splitlines():
        match = re.match(r"(?:\$ |    (?:\$ )?)(genied? .*)", line)
        if match:
            yield re.sub(r" &$| > \S+$|\s+#.*$", "", match[1])
    for span in code_spans(without_fences(text)):
        if re.match(r"genied? ", span):
            yield span


def words(line: str) -> list[str]:
    """A command line as words; brackets and dots of a synopsis are left out."""
    plain = re.sub(r"[\[\]…]", " ", line).replace(" | ", " ")
    return shlex.split(plain)


def resolve(line: str) -> tuple[click.Command, list[str]] | str:
    """The command that a line calls with its words, or what is wrong with the line."""
    parts = words(line)
    command: click.Command = cli if parts.pop(0) == "genie" else genied
    while isinstance(command, click.Group) and parts and not parts[0].startswith("-"):
        context = click.Context(command)
        found = command.get_command(context, parts[0])
        if found is None:
            return (command, []) if parts[0].isupper() else f"there is no command {parts[0]!r}"
        command = found
        parts.pop(0)
    return command, parts


def options(command: click.Command) -> dict[str, click.Parameter]:
    """Every spelling of every option of a command, `--help` included."""
    context = click.Context(command, help_option_names=["-h", "--help"])
    return {
        spelling: parameter
        for parameter in command.get_params(context)
        for spelling in parameter.opts
        if isinstance(parameter, click.Option)
    }


def leaves() -> dict[str, click.Command]:
    """Every command that does something: "plan show" → the command."""
    found: dict[str, click.Command] = {}

    def visit(path: str, command: click.Command) -> None:
        if isinstance(command, click.Group):
            for sub in command.list_commands(click.Context(command)):
                inner = command.get_command(click.Context(command), sub)
                assert inner is not None
                visit(f"{path} {sub}".strip(), inner)
        else:
            found[path] = command

    visit("", cli)
    return found
