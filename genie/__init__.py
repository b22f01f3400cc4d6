"""Genie: compile PyTorch models into reviewable plans, and run them on any machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from genie.client.session import Session

__version__ = "0.1.0"
"""Version of this distribution, as pyproject.toml has it."""

__all__ = ["__version__", "connect"]


def connect(
    endpoint: str | Sequence[str] | Mapping[str, str] | None = None,
    *,
    devices: Sequence[str] | None = None,
    tls_dir: Path | None = None,
    token_file: Path | None = None,
    transport: str = "auto",
) -> Session:
    """Open a session, and let the lazy device use the same daemon from its first tensor on.

    The arguments are those of `genie.client.connect`. Without an endpoint GENIE_ENDPOINT names the
    daemon, and else the runtime is embedded in this process (`devices` says what it then offers).
    Of several daemons the lazy device takes the first. It opens a session of its own: closing the
    one returned here leaves the lazy device's tensors where they are.

    Raises GEN0501 when nobody answers, GEN0503 without a common version, GEN0521 or GEN0522 for
    wrong credentials, GEN0530 or GEN0531 for a transport that is not there.
    """
    from genie.client.default import open_default

    return open_default(endpoint, devices, tls_dir, token_file, transport)
