"""The control channel to one daemon: calls, errors as ours, bytes counted, heartbeat watched."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from genie_runtime.endpoint import Endpoint
from genie_schemas import messages as m
from genie_schemas.errors import GenieError

if TYPE_CHECKING:
    import grpc

__all__ = ["Channel", "Credentials", "Stream"]

R = TypeVar("R", bound=BaseModel)

SILENCE = 1.5
"""Seconds without a heartbeat's answer after which a daemon counts as dead."""

CALL_SECONDS = 30.0

FRAMING = 14
"""Bytes of gRPC and HTTP/2 around every message of a stream."""

CLOSE_SECONDS = 2.0
"""How long closing may wait for gRPC to let go of its calls."""


class Credentials:
    """What a client shows: nothing on Unix sockets, a token on TCP, certificates beyond loopback.

    `tls_dir` or `token_file` None mean the user's own, where they are needed or exist.
    """

    def __init__(self, tls_dir: Path | None = None, token_file: Path | None = None) -> None:
        self.tls_dir = tls_dir
        self.token_file = token_file


class Channel:
    """gRPC to one endpoint. Thread-safe. Every call ends: in its reply, or in a GenieError."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        """Makes the channel; nothing is sent. Raises GEN0523 for unusable credentials."""
        self.endpoint = endpoint
        self.tls_dir: Path | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._sent = 0
        self._received = 0
        self._lock = threading.Lock()
        self._lost: GenieError | None = None
        self._closed = threading.Event()
        self.counters: Callable[[], m.LazyCounters] | None = None
        """What heartbeats tell beside the session, once somebody counts."""
        self._channel = self._open(credentials)

    def _open(self, credentials: Credentials) -> grpc.Channel:
        from genie_runtime.auth import Identity, forbid_old_tls
        from genie_runtime.secrets_files import config_home, default_token_file, read_token

        options = [
            ("grpc.max_receive_message_length", m.MAX_MESSAGE),
            ("grpc.max_send_message_length", m.MAX_MESSAGE),
            ("grpc.enable_http_proxy", 0),
            # No ping per heartbeat, which the daemon would answer, to find a good window.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", m.WINDOW),
            # Two sessions of one process are two connections: one's end is not the other's.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        endpoint = self.endpoint
        if endpoint.is_unix:
            import grpc

            return grpc.insecure_channel(endpoint.grpc_target, options)
        token_file = credentials.token_file
        if token_file is None and default_token_file().exists():
            token_file = default_token_file()
        if token_file is not None:
            self._metadata = (("authorization", f"Bearer {read_token(token_file)}"),)
        self.tls_dir = credentials.tls_dir
        if self.tls_dir is None and not endpoint.is_local:
            self.tls_dir = config_home()
        if self.tls_dir is None:
            import grpc

            return grpc.insecure_channel(endpoint.grpc_target, options)
        identity = Identity.load(self.tls_dir, "client")
        forbid_old_tls()
        import grpc

        return grpc.secure_channel(
            endpoint.grpc_target,
            grpc.ssl_channel_credentials(identity.ca, identity.key, identity.certificate),
            options,
        )

    def call(
        self, name: str, request: BaseModel, reply: type[R], timeout: float = CALL_SECONDS
    ) -> R:
        """One call. Raises the daemon's errors, GEN0501 when nobody answers, GEN0502 once lost."""
        import grpc

        if self._lost is not None:
            raise self._lost
        data = m.encode(request)
        method = self._channel.unary_unary(f"/{m.SERVICE}/{name}", _same, _same)
        pending = method.future(data, timeout=timeout, metadata=self._metadata)
        try:
            answer = self._await(pending)
        except grpc.RpcError as error:
            raise self._failed(error) from None
        except BaseException:
            pending.cancel()  # type: ignore[no-untyped-call]
            raise
        with self._lock:
            self._sent += len(data)
            self._received += len(answer)
        return m.decode_reply(reply, answer)

    def stream(self, name: str, request: BaseModel) -> Stream:
        """Have a stream of messages sent; GEN0502 once the daemon is lost."""
        if self._lost is not None:
            raise self._lost
        data = m.encode(request)
        method = self._channel.unary_stream(f"/{m.SERVICE}/{name}", _same, _same)
        self.count(len(data) + FRAMING, 0)
        return Stream(self, method(data, metadata=self._metadata))

    def count(self, sent: int, received: int) -> None:
        """Add to what went over the channel."""
        with self._lock:
            self._sent += sent
            self._received += received

    def failed(self, error: grpc.RpcError) -> GenieError:
        """A gRPC failure as ours; the heartbeat's word, if it has given the daemon up."""
        return self._lost or self._failed(error)

    def _await(self, pending: grpc.CallFuture[bytes]) -> bytes:
        """The reply; looks every moment whether the heartbeat has given the daemon up."""
        import grpc

        while True:
            try:
                return bytes(pending.result(timeout=0.25))
            except grpc.FutureTimeoutError:
                if self._lost is not None:
                    pending.cancel()  # type: ignore[no-untyped-call]
                    raise self._lost from None

    def traffic(self) -> tuple[int, int]:
        """(bytes sent, bytes received) in messages."""
        with self._lock:
            return self._sent, self._received

    # -- heartbeat --------------------------------------------------------------------------

    def watch(self, session: str, interval: float, *, brief: bool = False) -> None:
        """Keep a session alive and notice, in a thread, when the daemon does not answer.

        `brief` says nothing twice, which daemons understand from protocol 1.5 on.
        """
        args = (session, interval, brief)
        thread = threading.Thread(target=self._beat, args=args, name="genie-heartbeat", daemon=True)
        thread.start()

    def _beat(self, session: str, interval: float, brief: bool) -> None:
        import grpc

        outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        replies: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

        def requests() -> Iterator[bytes]:
            while (item := outbox.get()) is not None:
                yield item

        method = self._channel.stream_stream(f"/{m.SERVICE}/Heartbeat", _same, _same)
        call = method(requests(), metadata=self._metadata)

        def read() -> None:
            try:
                for answer in call:
                    replies.put(answer)
            except grpc.RpcError as error:
                replies.put(error)

        threading.Thread(target=read, name="genie-heartbeat-read", daemon=True).start()
        try:
            self._beat_loop(session, interval, brief, outbox, replies)
        finally:
            outbox.put(None)
            call.cancel()  # type: ignore[no-untyped-call]

    def _beat_loop(
        self,
        session: str,
        interval: float,
        brief: bool,
        outbox: queue.SimpleQueue[bytes | None],
        replies: queue.SimpleQueue[bytes | Exception],
    ) -> None:
        heard, silence = time.monotonic(), 0.0
        said: bytes | None = None
        while not self._closed.is_set():
            data = m.encode(self.keep(session))
            sent = m.AS_BEFORE if brief and data == said else data
            said = data
            self.count(len(sent) + FRAMING, 0)
            outbox.put(sent)
            until = time.monotonic() + interval
            while (left := until - time.monotonic()) > 0 and not self._closed.is_set():
                try:
                    answer = replies.get(timeout=left)
                except queue.Empty:
                    break
                heard, silence = time.monotonic(), 0.0
                if isinstance(answer, Exception):
                    self._give_up("its connection broke")
                    return
                self.count(0, len(answer) + FRAMING)
                if answer == m.AS_BEFORE:
                    continue
                try:
                    m.decode_reply(m.Pulse, answer)
                except GenieError as error:
                    self._give_up(error.message)
                    return
            # A process that was stopped, or could not run, has not listened: that does not count.
            now = time.monotonic()
            heard, silence = now, silence + min(now - heard, 2 * interval)
            if silence > SILENCE:
                self._give_up(f"it did not answer for {SILENCE} s")
                return

    def keep(self, session: str) -> m.KeepRequest:
        """What a heartbeat says, and the farewell."""
        return m.KeepRequest(session=session, lazy=self.counters() if self.counters else None)

    def _give_up(self, cause: str) -> None:
        if not self._closed.is_set():
            self._lost = self._lost or self._lost_error(cause)

    def lost(self) -> GenieError | None:
        """Why the daemon counts as dead, or None."""
        return self._lost

    def _lost_error(self, cause: str) -> GenieError:
        return GenieError(
            "GEN0502",
            f"the daemon at {self.endpoint} was lost",
            cause=cause,
            remedy="look at its log and start it again; a run with a --run-id can be asked for "
            "again safely",
            context={"endpoint": str(self.endpoint)},
        )

    # -- failures ---------------------------------------------------------------------------

    def _failed(self, error: grpc.RpcError) -> GenieError:
        """A gRPC failure as ours."""
        import grpc

        status = error.code()
        details = (error.details() or "").replace("\n", " ")[:300]
        where = str(self.endpoint)
        if status is grpc.StatusCode.UNAUTHENTICATED:
            return GenieError(
                "GEN0521",
                f"the daemon at {where} refused the token",
                cause=details,
                remedy="name the daemon's token with --token-file or GENIE_TOKEN_FILE",
            )
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return GenieError(
                "GEN0502",
                f"the daemon at {where} did not answer in time",
                remedy="look at its log",
                context={"endpoint": where},
            )
        if _is_tls(details) or (status is grpc.StatusCode.UNAVAILABLE and self._speaks_other()):
            return GenieError(
                "GEN0522",
                f"no TLS connection with the daemon at {where}",
                cause=details,
                remedy="use credentials of one `genie auth init` on both sides (--tls-dir), made "
                "with --host for the name that is dialled",
            )
        if status is grpc.StatusCode.UNAVAILABLE:
            if self._received:
                return self._lost_error(details)
            return GenieError(
                "GEN0501",
                f"nobody answers at {where}",
                cause=details,
                remedy=f"start a daemon: genie daemon --listen {where}",
                context={"endpoint": where},
            )
        return GenieError("GEN0509", f"the call to {where} failed: {status.name}", cause=details)

    def _speaks_other(self) -> bool:
        """Whether a TCP port accepts although gRPC failed: one side speaks TLS, the other not."""
        if self.endpoint.is_unix or self._received:
            return False
        import socket

        try:
            with socket.create_connection((self.endpoint.host, self.endpoint.port), timeout=2.0):
                return True
        except OSError:
            return False

    def close(self) -> None:
        """End the heartbeat and the channel.

        gRPC's close waits for calls to be drained and can wait for ever when Ctrl-C came in the
        middle of one, so it gets a thread and a limit.
        """
        self._closed.set()
        closer = threading.Thread(target=self._channel.close, name="genie-close", daemon=True)
        closer.start()
        closer.join(CLOSE_SECONDS)


class Stream:
    """Messages of a daemon as they come. `close` ends it; iterating then stops."""

    def __init__(self, channel: Channel, call: grpc.CallIterator[bytes]) -> None:
        self._channel = channel
        self._call = call
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        """Every message. Raises GEN0502 and the like when the stream breaks."""
        import grpc

        try:
            for data in self._call:
                self._channel.count(0, len(data) + FRAMING)
                yield bytes(data)
        except grpc.RpcError as error:
            if not self._closed:
                raise self._channel.failed(error) from None

    def close(self) -> None:
        """Stop; a second time does nothing."""
        self._closed = True
        self._call.cancel()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _same(data: bytes) -> bytes:
    """Messages are bytes already: gRPC has nothing to serialise."""
    return data


def _is_tls(details: str) -> bool:
    text = details.lower()
    return any(word in text for word in ("ssl", "tls", "certificate", "handshake"))
