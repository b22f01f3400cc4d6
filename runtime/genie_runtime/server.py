"""A daemon's state directory, control server and data listeners, opened in this order."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genie_runtime.auth import Identity, forbid_old_tls
from genie_runtime.config import Limits
from genie_runtime.core import Core
from genie_runtime.endpoint import Endpoint, prepare_folder, remove_dead_sockets
from genie_runtime.fabrics import FabricOptions, open_fabrics
from genie_runtime.gpu_direct import Choice
from genie_runtime.ports import DeviceSpec, ExecutorPort
from genie_runtime.secrets_files import default_token_file, ensure_token, read_token
from genie_schemas.errors import GenieError, Place
from genie_schemas.messages import MAX_MESSAGE, WINDOW

if TYPE_CHECKING:
    import grpc

    from genie_runtime.node import Node

WORKERS_PER_SESSION = 4
"""Threads for each session's calls: its heartbeat, a wait, and what it asks meanwhile."""


@dataclass(frozen=True)
class ServerOptions:
    """What `genied` was told. `peers` is where other daemons connect (--peer-listen)."""

    listen: Endpoint
    peers: Endpoint | None
    devices: list[DeviceSpec]
    state_dir: Path
    threads: int
    tls_dir: Path | None = None
    token_file: Path | None = None
    gpu_direct: Choice = "auto"
    limits: Limits = field(default_factory=Limits)
    fabrics: FabricOptions = field(default_factory=FabricOptions)

    def check_exposure(self) -> None:
        """GEN0520 unless every address beyond loopback comes with TLS and a token."""
        for endpoint in (self.listen, self.peers):
            if endpoint is None or endpoint.is_local:
                continue
            lacking = [
                name
                for name, value in (("--tls-dir", self.tls_dir), ("--token-file", self.token_file))
                if value is None
            ]
            if lacking:
                raise GenieError(
                    "GEN0520",
                    f"{endpoint} can be reached from other machines",
                    cause=f"given without {' and '.join(lacking)}",
                    remedy="make both with `genie auth init --host NAME`, or listen on a Unix "
                    "socket or 127.0.0.1",
                )


class Server:
    """A running daemon. `close` undoes what was opened, whatever of it there is."""

    def __init__(self, options: ServerOptions) -> None:
        """Check, lock, open ports, listen.

        Raises GEN0504, GEN0505, GEN0520, GEN0523, GEN0525; for ports GEN0515, GEN0532, GEN064x.
        """
        self.options = options
        self._closers = contextlib.ExitStack()
        options.check_exposure()
        try:
            self._open()
        except BaseException:
            self._closers.close()
            raise

    def _open(self) -> None:
        options = self.options
        _allow_descriptors()
        _make_state_dir(options.state_dir)
        self._lock(options.state_dir / "daemon.lock", "GEN0505", options.state_dir)
        identity, token = self._credentials()
        if identity is not None:
            forbid_old_tls()
        if options.listen.path is not None:
            path = options.listen.path
            prepare_folder(path.parent)
            self._lock(path.with_name(f".{path.name}.lock"), "GEN0504", path)
            remove_dead_sockets(path)
            self._closers.callback(path.unlink, missing_ok=True)
        fabrics = open_fabrics(options.fabrics, self._closers)
        from genie_runtime.gateway import DataGateway, Tls

        tls = None
        if identity is not None:
            tls = Tls(identity.context(server=True), identity.context(server=False))
        self._gateway = DataGateway(
            options.listen, options.peers, tls, fabrics, trusted=options.fabrics.trusted
        )
        self._closers.callback(self._gateway.close)
        # Imported before the executors are made: their processes import torch meanwhile, and
        # would compete for the processor with what a first client waits for.
        import grpc_health.v1.health  # noqa: F401

        import genie_runtime.service  # noqa: F401

        self.node = self._make_node()
        self._closers.callback(self.node.close)
        self.endpoint = self._serve(identity, token)

    def _make_node(self) -> Node:
        from genie_runtime.node import Node

        options = self.options

        def executor(device: DeviceSpec) -> ExecutorPort:
            from genie_runtime.supervisor import WorkerExecutor

            return WorkerExecutor(device, threads=options.threads)

        core = Core(
            options.devices,
            executor,
            options.state_dir,
            threads=options.threads,
            limits=options.limits,
            gateway=self._gateway,
            gpu_direct=options.gpu_direct,
        )
        core.node_id = _node_id(options.state_dir / "node-id")
        core.ledger()  # opened now: a ledger that cannot be used is told at the start
        return Node(core)

    def _credentials(self) -> tuple[Identity | None, str | None]:
        options = self.options
        identity = Identity.load(options.tls_dir, "server") if options.tls_dir else None
        if options.listen.is_unix:
            return identity, None
        if options.token_file is not None:
            return identity, read_token(options.token_file)
        return identity, ensure_token(default_token_file())

    def _serve(self, identity: Identity | None, token: str | None) -> Endpoint:
        import grpc
        from grpc_health.v1 import health, health_pb2_grpc

        from genie_runtime.service import control_handler

        listen = self.options.listen
        workers = self.options.limits.sessions * WORKERS_PER_SESSION
        server = grpc.server(
            ThreadPoolExecutor(workers, thread_name_prefix="genie-control"),
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.so_reuseport", 0),  # a second daemon on the port must fail, not share it
                # No ping per heartbeat to find a good window: ours is fixed.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", WINDOW),
            ],
        )
        server.add_generic_rpc_handlers((control_handler(self.node, token),))
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        port = _bind(server, listen, identity)
        server.start()
        self._grpc = server
        self._closers.callback(lambda: server.stop(0.5).wait(5.0))
        if listen.is_unix:
            return listen
        return Endpoint(host=listen.host, port=port)

    def _lock(self, path: Path, code: str, what: Path) -> None:
        """Hold an exclusive lock on a file for as long as the server lives."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise GenieError(
                "GEN0506",
                "the lock file cannot be made",
                Place(file=str(path)),
                error.strerror,
                "name another --state-dir or --listen",
            ) from None
        self._closers.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GenieError(
                code,
                "the state directory is in use" if code == "GEN0505" else "the address is in use",
                Place(file=str(what)),
                "another genied holds its lock",
                "stop the other daemon, or give this one its own --state-dir and --listen",
            ) from None

    def stop_serving(self) -> None:
        """Tell health checks that nothing new is taken."""
        self._health.enter_graceful_shutdown()

    def close(self) -> None:
        """End sessions, executors, listeners and locks, in the opposite order of opening."""
        self._closers.close()


def _bind(server: grpc.Server, listen: Endpoint, identity: Identity | None) -> int:
    """Bind the control address; a Unix socket is 0600 from its first moment. GEN0504."""
    import grpc

    # The umask is the process's: nothing else makes files now, and 0600 is right for all of them.
    before = os.umask(0o177)
    try:
        if identity is not None and not listen.is_unix:
            credentials = grpc.ssl_server_credentials(
                [(identity.key, identity.certificate)],
                root_certificates=identity.ca,
                require_client_auth=True,
            )
            port = server.add_secure_port(listen.grpc_target, credentials)
        else:
            port = server.add_insecure_port(listen.grpc_target)
    except RuntimeError as error:
        raise _not_bound(listen, str(error)) from None
    finally:
        os.umask(before)
    if port == 0:
        raise _not_bound(listen, "the system refused it")
    return port


def _not_bound(listen: Endpoint, cause: str) -> GenieError:
    return GenieError(
        "GEN0504",
        f"cannot listen at {listen}",
        cause=cause[:300],
        remedy="stop whoever has the address, or name another --listen",
    )


def _allow_descriptors() -> None:
    """Take the hard limit: every arena and connection has a descriptor, and workers inherit it.

    The usual soft limit of 1024 is for programs that call select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _make_state_dir(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GenieError(
            "GEN0506",
            "the state directory cannot be made",
            Place(file=str(folder)),
            error.strerror,
            "name another --state-dir",
        ) from None


def _node_id(path: Path) -> str:
    """What names this daemon across restarts: 32 hex digits, made once."""
    from genie_runtime.secrets_files import write_secret

    try:
        if not path.exists():
            write_secret(path, secrets.token_hex(16).encode() + b"\n")
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GenieError(
            "GEN0506", "the daemon's id cannot be stored", Place(file=str(path)), str(error)
        ) from None
    if len(text) != 32 or any(c not in "0123456789abcdef" for c in text):
        raise GenieError(
            "GEN0507",
            "the daemon's id is damaged",
            Place(file=str(path)),
            remedy="remove the file while no daemon runs: a new id is made",
        )
    return text
