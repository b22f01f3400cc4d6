"""A daemon as a link: control messages over gRPC, every bulk byte over genie_transport."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping

from genie.client.channel import Channel, Credentials
from genie.client.link import Call, Handle, Leg, LegEnd, LoadedPlan, NodeLink, Recalled, RunSpec
from genie.client.remote_call import RemoteCall
from genie.client.upload import send_constants
from genie_runtime import endpoint as endpoints
from genie_runtime.negotiation import no_path
from genie_runtime.plans import concrete
from genie_schemas import messages as m
from genie_schemas.errors import GenieError, InternalError, Place
from genie_schemas.types import TensorType, parse_type
from genie_schemas.versions import release
from genie_transport import Decision, DMAHandle, TransferError, TransferFuture, TransferManager
from genie_transport import connect as connect_data

__all__ = ["RemoteLink"]

_log = logging.getLogger("genie.client")
WAIT_MS = 1000
INSTALL_SECONDS = 120.0


class RemoteLink:
    """A session with one daemon."""

    def __init__(
        self, endpoint: str, hello: m.OpenRequest, credentials: Credentials | None = None
    ) -> None:
        """Connect and negotiate.

        Raises GEN0501, GEN0503, GEN0510, GEN0521 or GEN0522; GEN0530 or GEN0531 when the daemon,
        or the way to it, does not have the path that `hello` names.
        """
        self.transport = hello.transport
        self.endpoint = endpoints.parse(endpoint)
        self.name = endpoint
        self.channel = Channel(self.endpoint, credentials or Credentials())
        try:
            self.opened = self._open(hello)
            self.data = self._connect_data(self.opened.data)
        except BaseException:
            self.channel.close()
            raise
        self.session = self.opened.session
        self.order = self.opened.node
        self.threads = self.opened.threads
        self.channel.watch(self.session, self.opened.heartbeat_ms / 1000)
        self._devices: dict[str, list[str]] = {}
        self._calls = release(self.opened.protocol) >= (1, 1)

    def _open(self, hello: m.OpenRequest) -> m.OpenReply:
        if hello.transport == "shm" and not self.endpoint.is_local:
            raise GenieError(
                "GEN0531",
                f"shm does not reach the daemon at {self.endpoint}, which is on another host",
                remedy="name tcp, or leave the choice to Genie (--transport auto)",
            )
        try:
            opened = self.channel.call("Open", hello, m.OpenReply, 10.0)
        except GenieError as error:
            if error.code != "GEN0530":
                raise
            error.place = Place(path=self.name)
            raise
        if hello.transport not in ("auto", *opened.paths):
            # A daemon from before paths could be named, which has said nothing about them.
            raise no_path(hello.transport, opened.paths, self.name)
        return opened

    def _connect_data(self, where: m.DataEndpoint) -> TransferManager:
        tls = None
        if where.endpoint.startswith("tcp://") and self.channel.tls_dir is not None:
            from genie_runtime.auth import Identity

            tls = Identity.load(self.channel.tls_dir, "client").context(server=False)
        key = bytes.fromhex(where.key)
        target = self._reachable(where.endpoint)
        # A leg on this host is shared memory wherever both have it; elsewhere only TCP leads to
        # a client, which owns no port of DPDK.
        path = "tcp" if self.transport == "tcp" and not self.endpoint.is_local else None

        def decided(choice: Decision) -> None:
            _log.info("client and %s: %s", self.name, choice)

        return connect_data(
            target, where.session, key, path=path, tls=tls, timeout=10.0, decided=decided
        )

    def _reachable(self, endpoint: str) -> str:
        """A daemon that listens on every address names none: it is where control found it."""
        for wildcard in ("tcp://0.0.0.0:", "tcp://[::]:"):
            if endpoint.startswith(wildcard):
                host = self.endpoint.host
                shown = f"[{host}]" if ":" in host else host
                return f"tcp://{shown}:{endpoint.removeprefix(wildcard)}"
        return endpoint

    # -- plans ------------------------------------------------------------------------------

    def install(self, plan: LoadedPlan, devices: list[str]) -> None:
        """Install a plan; its text and its constants are sent only where they are missing."""
        request = m.InstallRequest(session=self.session, plan_digest=plan.digest, devices=devices)
        reply = self.channel.call("Install", request, m.InstallReply)
        if not reply.known:
            request = request.model_copy(update={"plan": plan.installed.text})
            self.channel.call("Install", request, m.InstallReply, INSTALL_SECONDS)
        send_constants(self.channel, self.data, self.session, plan)
        self._devices[plan.digest] = devices

    def bindings(self, plan_digest: str) -> list[str]:
        """The devices of an installed plan that this daemon serves."""
        return self._devices[plan_digest]

    # -- recorded results -------------------------------------------------------------------

    def recall(self, spec: RunSpec) -> Recalled:
        """Ask the daemon's ledger."""
        found = self.channel.call("Recall", self._recall_request(spec), m.RecallReply)
        return Recalled(found.state, {o.value: o.type for o in found.outputs})

    def fetch(
        self, spec: RunSpec, recalled: Recalled, timeout: float
    ) -> Mapping[str, tuple[str, memoryview]]:
        """Have recorded outputs sent."""
        landing = _Landing(self.data)
        try:
            for value, text in recalled.outputs.items():
                landing.add(value, text, parse_type(text).nbytes({}))
            request = m.FetchRequest(
                **self._recall_request(spec).model_dump(),
                outputs=landing.handles(),
                timeout_ms=max(1, int(timeout * 1000)),
            )
            self.channel.call("Fetch", request, m.Empty, timeout + 5.0)
            return landing.finish(5.0)
        finally:
            landing.withdraw()

    def _recall_request(self, spec: RunSpec) -> m.RecallRequest:
        if spec.inputs_digest is None:
            raise InternalError("a run without a name is not on record")
        return m.RecallRequest(
            session=self.session,
            plan_digest=spec.plan.digest,
            entrypoint=spec.entrypoint,
            run_id=spec.run_id,
            inputs_digest=spec.inputs_digest,
        )

    # -- runs -------------------------------------------------------------------------------

    def prepare(
        self, spec: RunSpec, links: Mapping[str, str], wait: float, deadline: float
    ) -> Leg | None:
        """Admit a run on the daemon."""
        request = m.PrepareRequest(
            session=self.session,
            plan_digest=spec.plan.digest,
            entrypoint=spec.entrypoint,
            run_id=spec.run_id,
            durable=spec.durable,
            inputs_digest=spec.inputs_digest,
            dims=dict(spec.inputs.dims),
            links=dict(links),
            wait_ms=int(wait * 1000),
            deadline_ms=max(1, int(deadline * 1000)),
        )
        if spec.keeps:
            self._check_keeps()
            request = request.model_copy(
                update={
                    "resident": dict(spec.resident),
                    "keep": dict(spec.keep),
                    "drop": list(spec.drop),
                    "forget": list(spec.forget),
                }
            )
        # The daemon loads the plan on its executor first, which the deadline bounds as well.
        reply = self.channel.call("Prepare", request, m.PrepareReply, deadline + 10.0)
        return None if reply.run is None else _RemoteLeg(self, spec, reply)

    def _check_keeps(self) -> None:
        if release(self.opened.protocol) < (1, 2):
            raise GenieError(
                "GEN0503",
                f"the daemon at {self.endpoint} speaks protocol {self.opened.protocol}",
                cause="it cannot keep tensors between runs, which the lazy device needs",
                remedy="upgrade the daemon to this version of Genie",
            )

    def open_call(self, spec: RunSpec, links: Mapping[str, str]) -> Call | None:
        """Open a call channel; None with a daemon from before there were any."""
        return RemoteCall(self, spec, links) if self._calls else None

    def control_traffic(self) -> tuple[int, int]:
        """Messages of this session."""
        return self.channel.traffic()

    def connect_peer(self, other: NodeLink) -> tuple[str, str]:
        """Let the other daemon expect a connection and this one dial it."""
        if not isinstance(other, RemoteLink):
            raise InternalError("a daemon's peer is a daemon")
        link, key = secrets.token_hex(16), secrets.token_hex(32)
        expect = m.ExpectRequest(
            session=other.session, link=link, key=key, transport=self.transport
        )
        expected = other.channel.call("ExpectPeer", expect, m.ExpectReply)
        dial = m.DialRequest(
            session=self.session,
            link=link,
            key=key,
            endpoint=other._reachable(expected.endpoint),
            transport=self.transport,
        )
        found = self.channel.call("DialPeer", dial, m.DialReply)
        why = "".join(f"; not {path}: {reason}" for path, reason in found.reasons.items())
        _log.info("%s and %s: %s%s", self.name, other.name, found.path, why)
        return link, found.path

    def link_path(self, link: str) -> str | None:
        """The path that a link of this daemon's has now."""
        try:
            reply = self.channel.call(
                "Links", m.SessionRequest(session=self.session), m.LinksReply, 5.0
            )
        except GenieError:  # what the run brought is there; only this cannot be told
            return None
        return reply.paths.get(link)

    def cancel(self, run_id: str) -> None:
        """Stop runs under an id."""
        self.channel.call("Cancel", m.CancelRequest(run_id=run_id), m.CancelReply)

    # -- state ------------------------------------------------------------------------------

    def traffic(self) -> tuple[int, int]:
        """Messages and data of this session, framing of the data plane included."""
        sent, received = self.channel.traffic()
        stats = self.data.stats()
        return sent + stats.bytes_sent, received + stats.bytes_received

    def path(self) -> str:
        """The data connection's path."""
        return self.data.capabilities().path

    def lost(self) -> GenieError | None:
        """What the heartbeat, or the data connection, says about the daemon's end."""
        failure = self.data.failure
        if failure is not None and self.channel.lost() is None:
            return GenieError(
                "GEN0502",
                f"the data connection with the daemon at {self.endpoint} broke",
                cause=str(failure),
                remedy="connect again; a run with a --run-id can be asked for again safely",
                context={"endpoint": str(self.endpoint)},
            )
        return self.channel.lost()

    def tell(self, counters: Callable[[], m.LazyCounters]) -> None:
        """Let heartbeats carry what the lazy device counts; older daemons do not ask."""
        if release(self.opened.protocol) >= (1, 3):
            self.channel.counters = counters

    def close(self) -> None:
        """End the session; a daemon that is gone is not waited for."""
        if self.channel.lost() is None:
            with contextlib.suppress(GenieError):  # it ends by its lease
                self.channel.call("Close", self.channel.keep(self.session), m.Empty, 5.0)
        self.channel.close()
        self.data.close()


class _Landing:
    """Buffers of the client's that a daemon sends outputs to."""

    def __init__(self, data: TransferManager) -> None:
        self._data = data
        self._buffers: dict[str, tuple[str, bytearray]] = {}
        self._waiting: dict[str, tuple[DMAHandle, TransferFuture]] = {}

    def add(self, value: str, type_text: str, nbytes: int) -> None:
        buffer = bytearray(nbytes)
        self._buffers[value] = (type_text, buffer)
        if nbytes:
            handle = self._data.register(buffer)
            self._waiting[value] = (handle, self._data.arrival(handle))

    def handles(self) -> dict[str, Handle]:
        return {value: handle.to_json() for value, (handle, _) in self._waiting.items()}

    def finish(self, timeout: float) -> dict[str, tuple[str, memoryview]]:
        """The outputs; the daemon has said that all were sent and verified."""
        end = time.monotonic() + timeout
        for value, (_, arrival) in self._waiting.items():
            try:
                arrival.result(max(end - time.monotonic(), 0.001))
            except (TransferError, TimeoutError) as error:
                raise GenieError(
                    "GEN0418", f"the output {value!r} did not arrive", cause=str(error)
                ) from None
        return {value: (text, memoryview(b)) for value, (text, b) in self._buffers.items()}

    def withdraw(self) -> None:
        for handle, _ in self._waiting.values():
            if self._data.failure is None:
                self._data.deregister(handle)
        self._waiting.clear()


class _RemoteLeg:
    """A run prepared on a daemon."""

    def __init__(self, link: RemoteLink, spec: RunSpec, prepared: m.PrepareReply) -> None:
        if prepared.run is None:
            raise InternalError("the run was not prepared")
        self._link = link
        self._spec = spec
        self._run: str = prepared.run
        self._inputs = prepared.inputs
        self.incoming: Mapping[str, Handle] = prepared.incoming
        self._landing = _Landing(link.data)
        self._sources: list[DMAHandle] = []
        self._posts: list[TransferFuture] = []
        self._ended = False
        self._values: Mapping[str, tuple[str, memoryview]] = {}

    def start(self, outgoing: Mapping[str, Handle]) -> None:
        for value, kind in self._outputs().items():
            dims = self._spec.inputs.dims
            if value not in self._spec.keep:
                self._landing.add(value, concrete(kind, dims), kind.nbytes(dims))
        request = m.StartRequest(
            session=self._link.session,
            run=self._run,
            outgoing=dict(outgoing),
            outputs=self._landing.handles(),
        )
        self._link.channel.call("Start", request, m.Empty)
        for name, handle in self._inputs.items():
            source = self._link.data.register(self._spec.inputs.data(name))
            self._sources.append(source)
            target = _handle(handle)
            self._posts.append(self._link.data.post(source, target, wait=10.0))

    def _outputs(self) -> dict[str, TensorType]:
        """Value → type of what this daemon's devices return."""
        bound = self._link.bindings(self._spec.plan.digest)
        shares = self._spec.plan.installed.shares
        return {
            value: kind
            for device in bound
            for value, kind in shares[self._spec.entrypoint, device].outputs.items()
        }

    def wait(self, timeout: float) -> LegEnd | None:
        request = m.WaitRequest(
            session=self._link.session,
            run=self._run,
            timeout_ms=min(WAIT_MS, max(1, int(timeout * 1000))),
        )
        found = self._link.channel.call("Wait", request, m.WaitReply, WAIT_MS / 1000 + 10.0)
        if found.state == "running":
            return None
        self._ended = True
        if found.state == "failed":
            return LegEnd(found.report, m.decode_errors(found.errors))
        self._values = self._landing.finish(5.0)
        return LegEnd(found.report, None)

    def outputs(self) -> Mapping[str, tuple[str, memoryview]]:
        return self._values

    def release(self) -> None:
        if not self._ended:
            request = m.RunRequestId(session=self._link.session, run=self._run)
            with contextlib.suppress(GenieError):  # one that cannot be asked lets go by its lease
                self._link.channel.call("Release", request, m.Empty, 5.0)
        self._landing.withdraw()
        for source in self._sources:
            if self._link.data.failure is None:
                self._link.data.deregister(source)
        self._sources.clear()


def _handle(data: Handle) -> DMAHandle:
    try:
        return DMAHandle.from_json(data)
    except TransferError as error:
        raise error.to_genie_error() from None
