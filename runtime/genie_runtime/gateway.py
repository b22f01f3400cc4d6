"""The data connections of a daemon: one listener for clients, one for peers if asked for."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genie_runtime.endpoint import Endpoint
from genie_runtime.negotiation import AUTO
from genie_transport import Decision, Listener, TransferManager, connect, ucx_built

if TYPE_CHECKING:
    from genie_transport import Fabric

DIAL_SECONDS = 10.0

Decided = Callable[[Decision], None]


@dataclass(frozen=True)
class Tls:
    """Contexts for data connections that leave the machine."""

    server: ssl.SSLContext
    client: ssl.SSLContext


class DataGateway:
    """Implements `genie_runtime.core.Gateway` over genie_transport's sockets."""

    def __init__(
        self,
        control: Endpoint,
        peers: Endpoint | None,
        tls: Tls | None,
        fabrics: Sequence[Fabric] = (),
        *,
        trusted: bool = False,
    ) -> None:
        """Listen beside the control endpoint, and at `peers`. Raises GEN06xx or GEN0504.

        Sessions with other daemons may go over `fabrics`, which stay the caller's. `trusted`
        declares the network between daemons trusted, so that UCX may use it.
        """
        self._tls = tls
        self._trusted = trusted
        self._fabrics = tuple(fabrics)
        self._clients = Listener.open(control.data, None if control.is_unix else _server(tls))
        self._peers = self._clients
        if peers is not None:
            try:
                where = f"unix://{peers.path}" if peers.is_unix else f"tcp://{peers}"
                self._peers = Listener.open(where, None if peers.is_unix else _server(tls))
            except BaseException:
                self._clients.close()
                raise

    @property
    def paths(self) -> tuple[str, ...]:
        """The data paths on which other daemons reach this one."""
        near = "shm" if self.peer_endpoint.startswith("unix://") else "tcp"
        ports = ("dpdk",) if self._fabrics else ()
        # Within a machine shared memory of our own is there, and better.
        ucx = ("ucx",) if near == "tcp" and self._trusted and ucx_built() else ()
        return (near, *ports, *ucx)

    @property
    def data_endpoint(self) -> str:
        """Where clients dial."""
        return self._clients.endpoint

    @property
    def peer_endpoint(self) -> str:
        """Where other daemons dial."""
        return self._peers.endpoint

    def expect_client(self, session: str, key: bytes, decided: Decided) -> TransferManager:
        """Await a client's connection. Clients have no ports."""
        return self._clients.expect(session, key, decided=decided)

    def expect_peer(
        self, link: str, key: bytes, transport: str, decided: Decided
    ) -> TransferManager:
        """Await another daemon's connection. GEN06xx when the path cannot be taken."""
        return self._peers.expect(
            link,
            key,
            path=None if transport == AUTO else transport,
            trusted=self._trusted,
            fabrics=self._fabrics,
            decided=decided,
        )

    def dial(
        self, endpoint: str, link: str, key: bytes, transport: str, decided: Decided
    ) -> TransferManager:
        """Connect to another daemon; GEN0604 and the like when it cannot be reached."""
        tls = self._tls.client if self._tls and endpoint.startswith("tcp://") else None
        return connect(
            endpoint,
            link,
            key,
            path=None if transport == AUTO else transport,
            tls=tls,
            trusted=self._trusted,
            timeout=DIAL_SECONDS,
            fabrics=self._fabrics,
            decided=decided,
        )

    def forget(self, name: str) -> None:
        """Nobody may come for this session or link any more."""
        self._clients.forget(name)
        if self._peers is not self._clients:
            self._peers.forget(name)

    def close(self) -> None:
        """Stop listening."""
        self._clients.close()
        if self._peers is not self._clients:
            self._peers.close()


def _server(tls: Tls | None) -> ssl.SSLContext | None:
    return tls.server if tls else None
