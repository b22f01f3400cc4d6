"""The `genie` command: a table of subcommands, each imported when it is used."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import click

__all__ = ["cli", "main"]

# Name, in the order of --help: module and one line of help. The help is kept here so that
# `genie --help` imports no command.
_COMMANDS: dict[str, tuple[str, str]] = {
    "compile": ("genie.cli.compile", "Compile a model and a spec into a plan."),
    "execute": ("genie.cli.execute", "Run a plan, here or on daemons."),
    "plan": ("genie.cli.plan", "Show, compare and verify plans."),
    "validate": ("genie.cli.validate", "Check a spec and report everything wrong with it."),
    "daemon": ("genie.cli.daemon", "Serve this machine's devices (the same as genied)."),
    "status": ("genie.cli.status", "Show what a daemon is doing."),
    "cancel": ("genie.cli.cancel", "Stop a run on a daemon."),
    "auth": ("genie.cli.auth", "Make certificates and tokens for daemons on a network."),
    "doctor": ("genie.cli.doctor", "Tell what this machine can do and what is missing."),
    "bench": ("genie.cli.bench", "Measure this installation."),
    "schema": ("genie.cli.schema", "Print the JSON Schema of specs or plans."),
    "explain": ("genie.cli.explain", "Tell more about an error code."),
}


# These must work where a broken genie.toml is what the user asks about.
_WITHOUT_DEFAULTS = frozenset({"explain", "schema"})


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


class _LazyGroup(click.Group):
    """Subcommands from a table; one whose module is not installed does not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (module, _) in _COMMANDS.items() if _installed(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS or not _installed(_COMMANDS[cmd_name][0]):
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            error = click.UsageError(f"No such command {name!r}.", ctx)
            # As click's NoSuchOption has it; `genie.cli.errors` turns it into a did-you-mean.
            error.possibilities = get_close_matches(name, self.list_commands(ctx), n=1)  # type: ignore[attr-defined]
            raise error
        helped = name in _WITHOUT_DEFAULTS or not {"-h", "--help"}.isdisjoint(args)
        if command is not None and not ctx.resilient_parsing and not helped:
            from genie.cli.config import load_defaults

            ctx.default_map = load_defaults(self, ctx, name)
        return name, command, args[1:]


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"genie {version('genie-plan')}")
        ctx.exit()


# \b keeps click from joining the lines below it.
_ABOUT = """Compile PyTorch models into reviewable plans, and run the plans on any machine.

\b
  genie compile model.py --spec vision.yaml -o vision.plan.json
  genie execute vision.plan.json --input image=image.npy
"""


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "GENIE"},
    help=_ABOUT,
    epilog="`genie COMMAND --help` tells more about a command.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """The group; its help is `_ABOUT`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `genie` with `argv` (default: the process's arguments) and return its exit status."""
    # gRPC's own log lines on stderr would stand between ours; its failures reach us as errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        result: Any = cli.main(args=args, prog_name="genie", standalone_mode=False)
        sys.stdout.flush()  # here, where a closed pipe can still be dealt with
    except (Exception, KeyboardInterrupt) as error:
        from genie.cli.errors import handle

        return handle(error, args)
    return int(result) if isinstance(result, int) else 0
