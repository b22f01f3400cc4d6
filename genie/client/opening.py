"""Opening sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from genie.client.endpoints import parse_on
from genie.client.link import NodeLink
from genie.client.session import Session
from genie_schemas.errors import GenieError
from genie_schemas.messages import OpenRequest
from genie_schemas.plan import FORMAT_VERSION, STATELESS_VERSION
from genie_schemas.verify import FEATURES
from genie_schemas.versions import CONTROL_PROTOCOL

__all__ = ["TRANSPORTS", "connect", "hello"]


TRANSPORTS = ("auto", "shm", "tcp", "dpdk", "ucx")
"""What `transport` may name; "auto" takes the best path that both ends have."""


def hello(transport: str = "auto") -> OpenRequest:
    """What this client speaks."""
    return OpenRequest(
        protocol=CONTROL_PROTOCOL,
        client=f"genie {version('genie-plan')}",
        formats=[STATELESS_VERSION, FORMAT_VERSION],
        features=list(FEATURES),
        transport=transport,
    )


def connect(
    endpoint: str | Sequence[str] | Mapping[str, str] | None = None,
    *,
    devices: Sequence[str] | None = None,
    tls_dir: Path | None = None,
    token_file: Path | None = None,
    transport: str = "auto",
) -> Session:
    """Open a session.

    Without an endpoint the runtime is embedded in this process (`devices` then says what it
    offers, as genied's --device does). One endpoint serves all devices of a plan; a list binds
    them in the plan's order; a mapping, or texts "d0=host:port", bind them by name. `tls_dir` and
    `token_file` name credentials other than the user's own.

    `transport` names the path between daemons, and from a client on another host: "shm", "tcp",
    "dpdk" or "ucx". It is then taken or the run is refused (GEN0530, GEN0531), never replaced;
    clients have no ports of DPDK or UCX, so their own leg is shm here and tcp from elsewhere.
    """
    if transport not in TRANSPORTS or (endpoint is None and transport != "auto"):
        raise _unfit(transport, named=transport in TRANSPORTS)
    if endpoint is None:
        from genie.client.local import EmbeddedLink
        from genie_runtime.embedded import embedded_node

        node = embedded_node(devices=list(devices) if devices else None)
        return Session([(None, EmbeddedLink(node, hello()))])
    if isinstance(endpoint, str):
        wanted = parse_on([endpoint])
    elif isinstance(endpoint, Mapping):
        wanted = [(name, text) for name, text in endpoint.items()]
    else:
        wanted = parse_on(list(endpoint))
    from genie.client.channel import Credentials
    from genie.client.remote import RemoteLink

    credentials = Credentials(tls_dir, token_file)

    opened: dict[str, NodeLink] = {}
    try:
        for _, text in wanted:
            if text not in opened:
                opened[text] = RemoteLink(text, hello(transport), credentials)
    except BaseException:
        for link in opened.values():
            link.close()
        raise
    return Session([(name, opened[text]) for name, text in wanted])


def _unfit(transport: str, *, named: bool) -> GenieError:
    if not named:
        return GenieError(
            "GEN0531",
            f"there is no transport {transport[:40]!r}",
            remedy=f"name one of {', '.join(TRANSPORTS)}",
        )
    return GenieError(
        "GEN0531",
        f"the plan runs in this process, where nothing goes over {transport}",
        remedy="name daemons with --on, or leave --transport out",
    )
