"""Failures of the data plane.

    TransferError      a registration or a transfer failed; what futures raise
    Refusal            internal: the receiving side turns a transfer away (code and one number)
    ProtocolViolation  internal: a peer broke the protocol; ends its connection

Set-up (open, connect, listen, expect) raises `genie_schemas.errors.GenieError` directly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from genie_schemas.errors import GenieError, Place

__all__ = ["ProtocolViolation", "Refusal", "TransferError", "refused", "setup_error"]

_REMEDIES = {
    "GEN0601": "name one of the existing paths",
    "GEN0602": "correct the option",
    "GEN0603": "pass an ssl.SSLContext with minimum version TLS 1.3 and CERT_REQUIRED",
    "GEN0604": "start the daemon, or correct the endpoint",
    "GEN0605": "choose another endpoint, or stop the process that has it",
    "GEN0606": "open a new session and connect with its id and key",
    "GEN0607": "install the same release on both machines",
    "GEN0608": "close the session's first manager before opening another",
    "GEN0609": "build the native part on both sides (pip install -e . --no-build-isolation), "
    "or name no path",
    "GEN0671": "ask for less, or free memory on this machine",
    "GEN0672": "make another arena",
    "GEN0610": "open a new connection and post again",
    "GEN0611": "use a manager that is open",
    "GEN0613": "allow more time, or raise the priority",
    "GEN0614": "wait for outstanding transfers, or give post() a time to wait",
    "GEN0615": "look at the peer's process and the network, then open a new connection",
    "GEN0620": "register the contiguous storage, or make the buffer contiguous first",
    "GEN0621": "pass a host buffer: bytes-like, a NumPy array or a detached CPU tensor",
    "GEN0622": "pass the handle on exactly as the peer's register() made it",
    "GEN0623": "register the buffer again and use the new handle",
    "GEN0624": "ask the receiver for a handle of its present epoch",
    "GEN0625": "name a range within the registered memory",
    "GEN0626": "register a writable buffer as destination",
    "GEN0627": "wait for the other transfer, or cancel it",
    "GEN0628": "name equal lengths, with DMAHandle.part()",
    "GEN0630": "post again, and leave the source unchanged until the transfer is done",
    "GEN0640": "open a new session, which has new keys",
    "GEN0641": "look at the interface and the cable, then open a new connection",
    "GEN0642": "correct the device, or name another path",
    "GEN0643": "reserve more huge pages or give DPDK more memory, or use a smaller MTU",
    "GEN0644": "apt-get install dpdk-dev libdpdk-dev, then pip install -e . --no-build-isolation",
    "GEN0645": "restart the process, and name all devices before the first is opened",
    "GEN0646": "sysctl vm.nr_hugepages=512, or pages=ordinary",
    "GEN0647": "set the interface up with the MTU that is asked for, or name another",
    "GEN0648": "give the data plane an interface without an address: a VLAN, a virtual function "
    "or a veth",
    "GEN0649": "run with CAP_NET_RAW, CAP_NET_ADMIN and, for namespaces, CAP_SYS_ADMIN",
    "GEN0650": "start the daemon with --dpdk DEVICE, or name no path",
    "GEN0651": "compare both ports' networks, addresses and MTU, or name no path",
    "GEN0652": "open a new connection and post again",
    "GEN0665": "install UCX and build again: apt-get install libucx-dev, then make setup",
    "GEN0666": "declare it on both sides (trusted=True), or use the tcp path",
    "GEN0667": "look at the UCX_ variables of the environment and at /dev/shm, or use another path",
    "GEN0631": "open a new connection; if it recurs, compare the releases of both sides",
}


@dataclass(eq=False)
class TransferError(Exception):
    """One registration or transfer that failed.

    `op_id` is the operation's number within its manager (None when there was none), `path` the
    transport ("loopback", "unix", "tcp"), `attempt` what post() was given, counting from 1.
    `context` holds plain JSON values, never a key.
    """

    code: str
    message: str
    op_id: int | None = None
    path: str = ""
    attempt: int = 1
    context: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.code, self.message)

    def __str__(self) -> str:
        where = [f"op {self.op_id}"] if self.op_id is not None else []
        where += [f"path {self.path}"] if self.path else []
        where += [f"attempt {self.attempt}"] if self.attempt > 1 else []
        return f"{self.code}: {self.message}" + (f" ({', '.join(where)})" if where else "")

    def to_genie_error(self) -> GenieError:
        """The same failure as the project's user-facing error, with place and remedy."""
        parts = [f"transfer {self.op_id}"] if self.op_id is not None else []
        parts += [f"path {self.path}"] if self.path else []
        return GenieError(
            self.code,
            self.message,
            Place(path=", ".join(parts)) if parts else None,
            remedy=_REMEDIES.get(self.code),
            context={
                "op_id": self.op_id,
                "path": self.path,
                "attempt": self.attempt,
                **self.context,
            },
        )


class Refusal(Exception):
    """The receiving side turns a transfer away. `detail` is the one number that explains it."""

    def __init__(self, code: str, detail: int = 0) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


class ProtocolViolation(Exception):
    """A frame that no correct peer sends. The text is for the log and the error's message."""


def refused(code: str, detail: int) -> tuple[str, str]:
    """The (code, message) with which the poster reports a refusal; unknown codes become 0600."""
    known = {
        "GEN0623": "the peer has no such destination: it was withdrawn or never was this session's",
        "GEN0624": f"the destination's epoch is over: the receiver is at epoch {detail}",
        "GEN0625": f"the range leaves the destination, which has {detail} bytes",
        "GEN0626": "the destination is read-only",
        "GEN0627": "another unfinished transfer is writing the same destination",
        "GEN0630": f"the payload was damaged behind byte {detail}",
    }
    if code in known:
        return code, known[code]
    return "GEN0600", f"the peer refused with {code}"


def setup_error(
    code: str, message: str, *, at: str = "", cause: str | None = None, remedy: str | None = None
) -> GenieError:
    """A failure of opening, listening or connecting, as the error that users meet."""
    place = Place(path=at) if at else None
    return GenieError(code, message, place, cause, remedy or _REMEDIES.get(code))
