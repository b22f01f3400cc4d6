"""Every way in which a command can fail: what is printed where, and the exit status.

Errors go to stderr for people. With --json, stdout carries `{"error": {code, message, place, cause,
remedy, context}, "errors": […]}` as well, so that stdout can be parsed either way. `errors` lists
all of several errors in one input; `error` is the first of them.

| what                              | status                                 |
|-----------------------------------|----------------------------------------|
| GenieError                        | that of its code                       |
| a command line that does not parse| 2 (GEN0131)                            |
| Ctrl-C                            | 130                                    |
| stdout closed by its reader       | 1, silently                            |
| OSError that no command explained | 1 (GEN0192)                            |
| any other exception               | 70 (GEN0190); traceback only in a file, with GENIE_DEBUG=1 |
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

import click

from genie.cli.common import json_wanted
from genie.cli.render import render_error, use_colour
from genie_schemas.errors import ExitCode, GenieError, GenieErrors, InternalError, Place

__all__ = ["handle"]


def _from_usage(error: click.ClickException) -> GenieError:
    ctx = getattr(error, "ctx", None)
    close = list(getattr(error, "possibilities", None) or ())
    message = " ".join((error.message if close else error.format_message()).split()).rstrip(".")
    command = ctx.command_path if ctx is not None else "genie"
    remedy = f"`{command} --help` shows what it takes"
    if close:
        remedy = f"did you mean {close[0]!r}? {remedy}"
    return GenieError("GEN0131", message[:1].lower() + message[1:], remedy=remedy)


def _from_os(error: OSError, argv: list[str]) -> GenieError:
    name = error.filename if isinstance(error.filename, str) else None
    reason = os.strerror(error.errno) if error.errno else str(error)
    return GenieError(
        "GEN0192",
        reason[:1].lower() + reason[1:] if reason else type(error).__name__,
        Place(file=name) if name else None,
        remedy="check the path, its permissions and the free space of its disk"
        + _crash_note(error, argv),
    )


def _crash_report(error: BaseException, argv: list[str]) -> Path | None:
    from platformdirs import user_state_path

    folder = user_state_path("genie")
    path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    text = "".join(
        [
            f"genie {' '.join(argv)}\n",
            f"Python {sys.version}\n\n",
            *traceback.format_exception(error),
        ]
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Arguments and locals may be private: for this user's eyes, and never over another file.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return path


def _crash_note(error: BaseException, argv: list[str]) -> str:
    """Write a crash report when GENIE_DEBUG asks for one, and say where it is."""
    if os.environ.get("GENIE_DEBUG", "") in ("", "0"):
        return ""
    path = _crash_report(error, argv)
    return f"; traceback: {path}" if path else "; the crash report could not be written"


def _from_bug(error: BaseException, argv: list[str]) -> GenieError:
    kind = "" if isinstance(error, InternalError) else f"{type(error).__name__}: "
    text = " ".join(str(error).split())[:500]
    note = _crash_note(error, argv) or "; GENIE_DEBUG=1 writes a crash report with the traceback"
    return GenieError("GEN0190", f"internal error: {kind}{text}", remedy=f"please report it{note}")


def _silence_stdout() -> None:
    # Python flushes stdout once more at exit, and would complain about the closed pipe there.
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(descriptor, sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        pass  # stdout is closed altogether, or no file: nothing will be flushed into it
    finally:
        os.close(descriptor)


def _show(error: GenieError, argv: list[str]) -> int:
    errors = error.errors if isinstance(error, GenieErrors) else (error,)
    click.echo(render_error(error, colour=use_colour(sys.stderr)), err=True, color=True)
    if json_wanted(argv) and sys.stdout is not None:
        body = {"error": errors[0].to_json(), "errors": [each.to_json() for each in errors]}
        try:
            sys.stdout.write(json.dumps(body, indent=2) + "\n")
            sys.stdout.flush()
        except OSError:  # nobody reads it, or its disk is full: stderr has told the error
            _silence_stdout()
    return int(error.exit_code)


def handle(error: BaseException, argv: list[str]) -> int:
    """Show what went wrong and return the exit status.

    Args:
        error: What a command raised.
        argv: The command line without the program, to see whether JSON is wanted.
    """
    if isinstance(error, GenieError):
        return _show(error, argv)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return int(ExitCode.USAGE)
    if isinstance(error, click.ClickException):
        return _show(_from_usage(error), argv)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _show(GenieError("GEN0191", "interrupted"), argv)
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return int(ExitCode.FAILURE)
    if isinstance(error, OSError):
        return _show(_from_os(error, argv), argv)
    return _show(_from_bug(error, argv), argv)
