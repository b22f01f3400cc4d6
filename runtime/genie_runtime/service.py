"""The control service over gRPC: JSON messages through generic handlers, no generated code."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from pydantic import BaseModel

from genie_runtime.node import Node
from genie_schemas import messages as m
from genie_schemas.errors import GenieError
from genie_transport import TransferError

__all__ = ["control_handler"]

_log = logging.getLogger("genie_runtime.service")

Method = Callable[[Any], BaseModel]


def control_handler(node: Node, token: str | None) -> grpc.GenericRpcHandler[bytes, bytes]:
    """The handler of `genie.v1.Control` for a node; `token` is wanted from every caller."""
    unary: dict[str, tuple[type[BaseModel], Method]] = {
        "Open": (m.OpenRequest, node.open),
        "Close": (m.KeepRequest, node.close_session),
        "Install": (m.InstallRequest, node.intake.install),
        "Missing": (m.PlanRequest, node.intake.missing),
        "PutConstants": (m.PutRequest, node.intake.put),
        "Seal": (m.SealRequest, node.intake.seal),
        "ExpectPeer": (m.ExpectRequest, node.expect),
        "DialPeer": (m.DialRequest, node.dial),
        "Links": (m.SessionRequest, node.links),
        "Recall": (m.RecallRequest, node.dispatch.recall),
        "Fetch": (m.FetchRequest, node.dispatch.fetch),
        "Prepare": (m.PrepareRequest, node.dispatch.prepare),
        "Start": (m.StartRequest, node.dispatch.start),
        "Wait": (m.WaitRequest, node.dispatch.wait),
        "Release": (m.RunRequestId, node.dispatch.release),
        "DropState": (m.DropStateRequest, node.dispatch.drop_state),
        "OpenCall": (m.OpenCallRequest, node.calls.open),
        "LinkCall": (m.LinkCallRequest, node.calls.link),
        "CloseCall": (m.CallRequestId, node.calls.close),
        "Cancel": (m.CancelRequest, node.dispatch.cancel),
        "Status": (m.Empty, lambda _: node.status()),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(_unary(name, model, method, token))
        for name, (model, method) in unary.items()
    }
    handlers["Tokens"] = grpc.unary_stream_rpc_method_handler(_tokens(node, token))
    handlers["Heartbeat"] = grpc.stream_stream_rpc_method_handler(_heartbeat(node, token))
    return grpc.method_handlers_generic_handler(m.SERVICE, handlers)


def _authorize(context: grpc.ServicerContext, token: str | None) -> None:
    """End the call unless its metadata carries the token."""
    if token is None:
        return
    given = dict(context.invocation_metadata()).get("authorization", "")
    text = given.decode("ascii", "replace") if isinstance(given, bytes) else given
    if not hmac.compare_digest(text.encode(), f"Bearer {token}".encode()):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")


def _unary(
    name: str, model: type[BaseModel], method: Method, token: str | None
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        _authorize(context, token)
        return _answer(name, lambda: m.encode_reply(method(m.decode(model, data))))

    return handle


def _heartbeat(
    node: Node, token: str | None
) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]:
    def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        _authorize(context, token)
        beat = _Beat(node)
        for data in requests:
            yield _answer("Heartbeat", lambda data=data: beat(data))  # type: ignore[misc]

    return handle


def _tokens(
    node: Node, token: str | None
) -> Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]:
    def handle(data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        _authorize(context, token)
        frames = _stream(node, data, context)
        while (frame := _answer("Tokens", lambda: next(frames, b""))) != b"":
            yield frame

    return handle


def _stream(node: Node, data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield from node.dispatch.tokens(m.decode(m.TokensRequest, data), context.is_active)


class _Beat:
    """Answers one stream's heartbeats, which repeat one message while a program rests.

    Clients since protocol 1.5 say so with no bytes, and get none. Whoever sends the message again
    gets telemetry again, but it is read once: after a pause nothing of the reader is in the
    processor's caches, and reading would take fifteen times as long as in a row, most of what an
    idle session costs in Python.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._request: m.KeepRequest | None = None
        self._data = b""

    def __call__(self, data: bytes) -> bytes:
        if data == m.AS_BEFORE and self._request is not None:
            self._node.keep(self._request)
            return m.AS_BEFORE
        if self._request is None or data != self._data:
            self._request = m.decode(m.KeepRequest, data)
            # As we write it, not as it came: a padded message is not kept.
            self._data = m.encode(self._request)
        return m.encode_reply(self._node.heartbeat(self._request))


def _answer(name: str, make: Callable[[], bytes]) -> bytes:
    """A reply, or the error in its place: gRPC statuses carry no codes, places or remedies."""
    try:
        return make()
    except GenieError as error:
        _log.info("%s refused: %s %s", name, error.code, error.message)
        return m.encode_error(error)
    except TransferError as error:
        return m.encode_error(error.to_genie_error())
    except Exception as error:
        _log.exception("%s failed", name)
        return m.encode_error(
            GenieError("GEN0419", f"{name} failed in an unforeseen way", cause=repr(error)[:500])
        )
