"""`genie status`: what a daemon is doing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genie.cli.common import json_option, print_json

if TYPE_CHECKING:
    from genie_schemas.messages import LazyCounters, PoolStatus

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command("status")
@click.option("--on", metavar="ENDPOINT", help="The daemon; by default this user's own.")
@click.option("--tls-dir", type=_PATH, envvar="GENIE_TLS_DIR", help="As `genie auth init` made.")
@click.option("--token-file", type=_PATH, envvar="GENIE_TOKEN_FILE", help="The daemon's token.")
@json_option
def command(on: str | None, tls_dir: Path | None, token_file: Path | None, as_json: bool) -> None:
    """Show a daemon's devices, sessions, runs and counters."""
    from genie.client.admin import status
    from genie_schemas.messages import LazyCounters

    found = status(on, tls_dir, token_file)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    state = "draining" if found.draining else "serving"
    click.echo(f"genied {found.version}: {state} for {found.uptime_s} s")
    click.echo(f"  boot {found.boot_id[:8]}, epoch {found.epoch}")
    click.echo(f"  {found.runs} runs, {found.plans} plans, {found.sessions} sessions")
    for device in found.devices:
        used = device.reserved_bytes + device.constant_bytes + device.state_bytes
        click.echo(
            f"  {device.id}  {device.kind}  {used / 2**20:.1f} of "
            f"{device.memory_bytes / 2**20:.0f} MiB held"
        )
        if device.pool is not None:
            click.echo(f"      {_pool_line(device.pool)}")
    if found.gpu_direct is not None and found.gpu_direct.mode != "none":
        click.echo(f"  GPUs: {found.gpu_direct.mode} ({found.gpu_direct.reason})")
    for lazy in found.lazy:
        click.echo(f"  lazy device, session of {lazy.age_s} s: {_lazy_line(lazy)}")
    totals = {n: found.telemetry.get(f"lazy_{n}", 0) for n in LazyCounters.model_fields}
    if any(totals.values()):
        click.echo(f"  lazy devices since the start: {_lazy_line(LazyCounters(**totals))}")
    if found.states is not None and found.states.count:
        held = found.states.bytes / 2**20
        click.echo(f"  {found.states.count} sequences with {held:.1f} MiB of state")
    for run in found.active:
        entry = f"{run.entrypoint} ({run.phase})" if run.phase else run.entrypoint
        click.echo(f"  {run.run_id}  {run.state}  {entry}  {run.age_ms / 1000:.1f} s")


def _lazy_line(counters: LazyCounters) -> str:
    """What programs on the lazy device did, and what it cost them."""
    size = counters.graph_ops // max(counters.graphs_run, 1)
    return (
        f"{counters.ops_intercepted} operators recorded, {counters.graphs_run} graphs of {size} "
        f"run ({counters.graph_cache_hits} planned before), {counters.host_fallbacks} operators on "
        f"the host, {counters.synchronisations} waits"
    )


def _pool_line(pool: PoolStatus) -> str:
    """Shared memory in one line: how full, how broken up, and whether anybody had to wait."""
    text = f"shared {pool.used_bytes / 2**20:.1f} MiB, peak {pool.peak_bytes / 2**20:.1f} MiB"
    text += f", {pool.fragmentation_ppm / 1e4:.1f} % fragmented"
    if pool.huge_bytes:
        text += f", {100 * pool.huge_bytes // pool.arena_bytes} % in 2 MiB pages"
    if pool.waits or pool.refused:
        text += f", {pool.waits} waits ({pool.waited_ms} ms), {pool.refused} refused"
    return text
