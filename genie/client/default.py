"""Where this process's sessions go when nobody says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genie.client.opening import connect
from genie.client.session import Session

__all__ = ["Target", "default_target", "open_default"]

ENVIRONMENT = "GENIE_ENDPOINT"


@dataclass(frozen=True)
class Target:
    """One daemon with what is needed to reach it; without an endpoint, this process."""

    endpoint: str | None
    tls_dir: Path | None = None
    token_file: Path | None = None
    transport: str = "auto"

    def open(self) -> Session:
        """A session there. Raises GEN05xx when it does not answer."""
        return connect(
            self.endpoint,
            tls_dir=self.tls_dir,
            token_file=self.token_file,
            transport=self.transport,
        )


_told: Target | None = None


def default_target() -> Target:
    """What `genie.connect` was told last, else GENIE_ENDPOINT's daemon, else this process."""
    return _told or Target(os.environ.get(ENVIRONMENT) or None)


def open_default(
    endpoint: str | Sequence[str] | Mapping[str, str] | None,
    devices: Sequence[str] | None,
    tls_dir: Path | None,
    token_file: Path | None,
    transport: str,
) -> Session:
    """What `genie.connect` does. A daemon that does not answer is not remembered."""
    global _told  # what one process was told
    if endpoint is None and devices is None:
        endpoint = os.environ.get(ENVIRONMENT) or None
    session = connect(
        endpoint, devices=devices, tls_dir=tls_dir, token_file=token_file, transport=transport
    )
    if endpoint:
        first = endpoint if isinstance(endpoint, str) else _first(endpoint)
        _told = Target(first, tls_dir, token_file, transport)
    return session


def _first(endpoints: Sequence[str] | Mapping[str, str]) -> str:
    """The endpoint of the first of several daemons, without the plan device that it is for."""
    from genie.client.endpoints import parse_on

    if isinstance(endpoints, Mapping):
        return next(iter(endpoints.values()))
    return parse_on(list(endpoints))[0][1]
