"""`genied`: the daemon's command line, its signals, and its end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from genie_runtime.gpu_direct import Choice
    from genie_runtime.server import Server

__all__ = ["command", "main", "serve"]

_PATH = click.Path(path_type=Path)
_LOOK = 1.0
"""Seconds after which a signal that reached another thread is noticed at the latest."""


@click.command("genied", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--listen", metavar="ENDPOINT", help="unix:///path (default) or host:port.")
@click.option("--peer-listen", metavar="ENDPOINT", help="Where other daemons send data.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="SPEC",
    help="cpu, cpu:memory=2GiB, cuda:0 …; may be repeated. Default: a CPU device and every GPU.",
)
@click.option("--state-dir", type=_PATH, help="Ledger, logs of negotiations. One daemon each.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of a CPU device.")
@click.option("--tls-dir", type=_PATH, envvar="GENIE_TLS_DIR", help="As `genie auth init` made.")
@click.option("--token-file", type=_PATH, envvar="GENIE_TOKEN_FILE", help="The token to ask for.")
@click.option(
    "--ledger-size", default="1GiB", metavar="SIZE", help="Recorded results kept, together."
)
@click.option(
    "--ledger-days", type=click.IntRange(1, 3650), default=7, help="Days that they are kept."
)
@click.option(
    "--dpdk",
    multiple=True,
    metavar="DEVICE",
    help="A DPDK port for data between daemons, such as "
    "net_af_packet0,iface=eth1,mtu=9000,ip=10.99.0.1 or a PCI address; may be repeated.",
)
@click.option(
    "--trusted-fabric",
    is_flag=True,
    help="Nobody on the networks between the daemons is hostile: do without encryption there, and "
    "let UCX use them.",
)
@click.option("--dpdk-memory", default="256MiB", metavar="SIZE", help="Memory of DPDK's own.")
@click.option(
    "--gpu-direct",
    type=click.Choice(("on", "off", "auto")),
    default="auto",
    help="Network to GPU straight (on), through pinned memory (off), or what can be had.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, 3600),
    default=30.0,
    help="How long SIGTERM lets runs finish.",
)
def command(
    listen: str | None,
    peer_listen: str | None,
    devices: tuple[str, ...],
    state_dir: Path | None,
    threads: int | None,
    tls_dir: Path | None,
    token_file: Path | None,
    ledger_size: str,
    ledger_days: int,
    dpdk: tuple[str, ...],
    trusted_fabric: bool,
    dpdk_memory: str,
    gpu_direct: Choice,
    drain_seconds: float,
) -> int:
    """Serve this machine's devices to clients that bring plans.

    Listens on a private Unix socket by default. Beyond loopback it needs --tls-dir and
    --token-file. SIGTERM drains: runs that go on may finish, then it ends with status 0.
    """
    from genie_runtime import endpoint
    from genie_runtime.config import Limits
    from genie_runtime.devices import parse_devices, parse_size
    from genie_runtime.embedded import default_threads, state_home
    from genie_runtime.fabrics import FabricOptions
    from genie_runtime.server import ServerOptions

    options = ServerOptions(
        listen=endpoint.parse(listen) if listen else endpoint.default_endpoint(),
        peers=endpoint.parse(peer_listen) if peer_listen else None,
        devices=parse_devices(devices),
        state_dir=state_dir or state_home() / "daemon",
        threads=threads or default_threads(),
        tls_dir=tls_dir,
        token_file=token_file,
        gpu_direct=gpu_direct,
        limits=Limits(
            drain_seconds=drain_seconds,
            ledger_bytes=parse_size(ledger_size),
            ledger_age=ledger_days * 86400.0,
        ),
        fabrics=FabricOptions(dpdk, trusted_fabric, parse_size(dpdk_memory)),
    )
    options.check_exposure()
    from genie_runtime import logs
    from genie_runtime.server import Server

    logs.configure()  # before ports are opened: what is trusted is told at the start
    return serve(Server(options))


def serve(server: Server) -> int:
    """Run until SIGTERM or SIGINT, drain, end. Returns the exit status."""
    from genie_runtime import logs
    from genie_runtime.sdnotify import notify, watchdog_interval

    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    log = logs.logger("genied")
    node = server.node
    log.info(
        "listening",
        endpoint=str(server.endpoint),
        devices=[f"{d.id}:{d.kind}" for d in node.core.devices.values()],
        boot_id=node.core.boot_id[:8],
        paths=list(node.core.offer.paths),
        pid=os.getpid(),
    )
    notify("READY=1")
    interval = watchdog_interval()
    # Not for ever: the system may give a signal to a thread of the native core, and then nothing
    # interrupts this wait for the handler to run.
    while not stop.wait(_LOOK if interval is None else min(interval, _LOOK)):
        if interval is not None:
            # Asking for the status takes the node's locks: a daemon that is stuck does not answer.
            node.status()
            notify("WATCHDOG=1")
    notify("STOPPING=1")
    server.stop_serving()
    log.info("draining", limit_s=node.core.limits.drain_seconds)
    log.info(node.drain())
    server.close()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `genied` and return its exit status; errors go to stderr, without a traceback."""
    from genie_schemas.errors import ExitCode, GenieError

    # gRPC's own log lines would stand between our JSON lines; its failures reach us as errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        result = command.main(
            args=list(sys.argv[1:] if argv is None else argv),
            prog_name="genied",
            standalone_mode=False,
        )
    except GenieError as error:
        click.echo(f"genied: {error}", err=True)
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return int(ExitCode.USAGE)
    except (KeyboardInterrupt, click.Abort):
        return int(ExitCode.INTERRUPTED)
    return int(result) if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
