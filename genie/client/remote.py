"""A daemon as a link: control messages over gRPC, every bulk byte over genie_transport."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from genie.client.channel import Channel, Credentials
from genie.client.generation import generation_request
from genie.client.link import Call, Leg, LoadedPlan, NodeLink, Recalled, RunSpec
from genie.client.remote_call import RemoteCall
from genie.client.remote_leg import Landing, RemoteLeg
from genie.client.upload import send_constants
from genie_runtime import endpoint as endpoints
from genie_runtime.negotiation import no_path
from genie_schemas import messages as m
from genie_schemas.errors import GenieError, InternalError, Place
from genie_schemas.types import parse_type
from genie_schemas.versions import release
from genie_transport import Decision, TransferError, TransferManager
from genie_transport import connect as connect_data

__all__ = ["RemoteLink"]

_log = logging.getLogger("genie.client")
INSTALL_SECONDS = 120.0
_AGAIN = 0.1
"""Seconds between attempts to reach a daemon that may come back."""

_ABSENT = ("GEN0501", "GEN0502", "GEN0510")


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
        self._hello = hello
        self._credentials = credentials or Credentials()
        self._installed: dict[str, tuple[LoadedPlan, list[str]]] = {}
        self._moved = (0, 0)
        self._mending = threading.Lock()
        self.incarnation = 0
        self.channel = Channel(self.endpoint, self._credentials)
        self._connect()

    def _connect(self) -> None:
        """Open a session over `channel`, which is closed when that fails."""
        try:
            opened = self._open()
            self.data = self._connect_data(opened.data)
        except BaseException:
            self.channel.close()
            raise
        self.opened = opened
        self.session = opened.session
        self.order = opened.node
        self.threads = opened.threads
        self._protocol = release(opened.protocol)
        self.channel.watch(self.session, opened.heartbeat_ms / 1000, brief=self._protocol >= (1, 5))

    def reconnect(self, until: float) -> None:
        """Open a new session in place of one that was lost, with the same plans installed.

        Waits until `until` (monotonic, s) for the daemon to come back; GEN0501 and the like when it
        does not. Kept tensors and state were lost with it.
        """
        with self._mending:
            if self.lost() is None:
                return  # another run of this session was quicker
            old = self.channel, self.data
            self._moved = self.traffic()
            while True:
                self.channel = Channel(self.endpoint, self._credentials)
                try:
                    self._connect()
                    break
                except (GenieError, TransferError) as error:
                    self.channel = old[0]  # still the one that says why the daemon is lost
                    refused = isinstance(error, GenieError) and error.code not in _ABSENT
                    if refused or time.monotonic() + _AGAIN > until:
                        raise
                    time.sleep(_AGAIN)
            old[0].close()
            old[1].close()
            for plan, devices in self._installed.values():
                self.install(plan, devices)
            self.incarnation += 1

    def _open(self) -> m.OpenReply:
        hello = self._hello
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
        version = plan.installed.plan.format_version
        if version not in self.opened.formats:
            raise GenieError(
                "GEN0503",
                f"the daemon at {self.endpoint} does not read plan format {version}",
                cause=f"it is Genie {self.opened.version}, and reads "
                f"{', '.join(self.opened.formats)}",
                remedy="upgrade the daemon to this version of Genie",
            )
        request = m.InstallRequest(session=self.session, plan_digest=plan.digest, devices=devices)
        reply = self.channel.call("Install", request, m.InstallReply)
        if not reply.known:
            request = request.model_copy(update={"plan": plan.installed.text})
            self.channel.call("Install", request, m.InstallReply, INSTALL_SECONDS)
        send_constants(self.channel, self.data, self.session, plan)
        self._installed[plan.digest] = plan, devices

    def bindings(self, plan_digest: str) -> list[str]:
        """The devices of an installed plan that this daemon serves."""
        return self._installed[plan_digest][1]

    # -- recorded results -------------------------------------------------------------------

    def recall(self, spec: RunSpec) -> Recalled:
        """Ask the daemon's ledger."""
        found = self.channel.call("Recall", self._recall_request(spec), m.RecallReply)
        return Recalled(found.state, {o.value: o.type for o in found.outputs})

    def fetch(
        self, spec: RunSpec, recalled: Recalled, timeout: float
    ) -> Mapping[str, tuple[str, memoryview]]:
        """Have recorded outputs sent."""
        landing = Landing(self.data)
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
            self._check((1, 2), "keep tensors between runs, which the lazy device needs")
            for digest in spec.forget:
                self._installed.pop(digest, None)
            request = request.model_copy(
                update={
                    "resident": dict(spec.resident),
                    "keep": dict(spec.keep),
                    "drop": list(spec.drop),
                    "forget": list(spec.forget),
                }
            )
        if spec.state is not None or spec.generation is not None:
            self._check((1, 4), "generate, and keep state between runs")
            request = request.model_copy(
                update={
                    "state": spec.state_request(),
                    "generation": generation_request(spec.generation),
                }
            )
        # The daemon loads the plan on its executor first, which the deadline bounds as well.
        reply = self.channel.call("Prepare", request, m.PrepareReply, deadline + 10.0)
        return None if reply.run is None else RemoteLeg(self, spec, reply)

    def _check(self, protocol: tuple[int, int], what: str) -> None:
        if self._protocol < protocol:
            raise GenieError(
                "GEN0503",
                f"the daemon at {self.endpoint} speaks protocol {self.opened.protocol}",
                cause=f"it cannot {what}",
                remedy="upgrade the daemon to this version of Genie",
            )

    def drop_state(self, sequence: str) -> None:
        """Free the state of a sequence."""
        request = m.DropStateRequest(session=self.session, sequence=sequence)
        self.channel.call("DropState", request, m.Empty)

    def open_call(self, spec: RunSpec, links: Mapping[str, str]) -> Call | None:
        """Open a call channel; None with a daemon from before there were any."""
        return RemoteCall(self, spec, links) if self._protocol >= (1, 1) else None

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
        before = self._moved
        return before[0] + sent + stats.bytes_sent, before[1] + received + stats.bytes_received

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
        if self._protocol >= (1, 3):
            self.channel.counters = counters

    def close(self) -> None:
        """End the session; a daemon that is gone is not waited for."""
        if self.channel.lost() is None:
            with contextlib.suppress(GenieError):  # it ends by its lease
                self.channel.call("Close", self.channel.keep(self.session), m.Empty, 5.0)
        self.channel.close()
        self.data.close()
