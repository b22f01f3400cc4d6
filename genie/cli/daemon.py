"""`genie daemon`: the same command as `genied`."""

from __future__ import annotations

import click

from genie_runtime.main import command as genied

__all__ = ["command"]

command = click.Command("daemon", params=genied.params, callback=genied.callback, help=genied.help)
