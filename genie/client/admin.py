"""Asking a daemon about itself, without a session."""

from __future__ import annotations

from pathlib import Path

from genie.client.channel import Channel, Credentials
from genie_runtime import endpoint as endpoints
from genie_schemas.messages import CancelReply, CancelRequest, Empty, StatusReply

__all__ = ["cancel", "status"]

_SECONDS = 10.0


def _channel(on: str | None, tls_dir: Path | None, token_file: Path | None) -> Channel:
    where = endpoints.parse(on) if on else endpoints.default_endpoint()
    return Channel(where, Credentials(tls_dir, token_file))


def status(
    on: str | None = None, tls_dir: Path | None = None, token_file: Path | None = None
) -> StatusReply:
    """A daemon's status; GEN0501 when nobody answers."""
    channel = _channel(on, tls_dir, token_file)
    try:
        return channel.call("Status", Empty(), StatusReply, _SECONDS)
    finally:
        channel.close()


def cancel(
    run_id: str,
    on: str | None = None,
    tls_dir: Path | None = None,
    token_file: Path | None = None,
) -> int:
    """Stop every run under an id on a daemon; how many. GEN0416 when there is none."""
    from genie.client.session import check_run_id

    check_run_id(run_id)
    channel = _channel(on, tls_dir, token_file)
    try:
        return channel.call("Cancel", CancelRequest(run_id=run_id), CancelReply, _SECONDS).cancelled
    finally:
        channel.close()
