"""What a session binds: a pure function of what both sides offer, logged to be replayed.

Every line of the log is one JSON object. `{"request", "offer", "answer" | "refused"}` is a session;
`replay` decides each again and reports where this version would decide differently. `{"link", …}`
tells which data path a session's connection took, and why no better one.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genie_schemas import canonical
from genie_schemas.errors import GenieError, Place
from genie_schemas.messages import OpenRequest
from genie_schemas.plan import FORMAT_VERSION, STATELESS_VERSION
from genie_schemas.verify import FEATURES
from genie_schemas.versions import CONTROL_PROTOCOL

MAX_LOG = 16 * 1024 * 1024
AUTO = "auto"
"""The transport of a request that leaves the choice to the peers."""


@dataclass(frozen=True)
class Offer:
    """What a node can do. `formats` are plan format versions that it reads.

    `paths` are the data paths on which other daemons reach it.
    """

    version: str
    torch: str
    threads: int
    protocol: str = CONTROL_PROTOCOL
    formats: tuple[str, ...] = (STATELESS_VERSION, FORMAT_VERSION)
    features: tuple[str, ...] = FEATURES
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """What is bound for a session. `transport` is the data path that was named, or "auto"."""

    protocol: str
    formats: tuple[str, ...]
    features: tuple[str, ...]
    threads: int
    transport: str = AUTO


def negotiate(request: OpenRequest, offer: Offer) -> Agreement:
    """Agree on the lower minor version of one major, and on what both sides have.

    Raises GenieError GEN0503 when the majors differ or no plan format is common, GEN0530 when a
    data path was named that the node does not have.
    """
    theirs, ours = _version(request.protocol), _version(offer.protocol)
    if theirs[0] != ours[0]:
        older = "the client" if theirs < ours else "the daemon"
        raise GenieError(
            "GEN0503",
            f"the client speaks control protocol {request.protocol}, the daemon {offer.protocol}",
            remedy=f"upgrade {older}",
            context={"client": request.protocol, "daemon": offer.protocol},
        )
    formats = tuple(f for f in offer.formats if f in request.formats)
    if not formats:
        raise GenieError(
            "GEN0503",
            f"the client sends plan formats {', '.join(request.formats)}; "
            f"the daemon reads {', '.join(offer.formats)}",
            remedy="upgrade the older side",
        )
    if request.transport not in (AUTO, *offer.paths):
        raise no_path(request.transport, offer.paths)
    features = tuple(f for f in offer.features if f in request.features)
    protocol = ".".join(map(str, min(theirs, ours)))
    return Agreement(protocol, formats, features, offer.threads, request.transport)


def no_path(named: str, paths: Sequence[str], where: str | None = None) -> GenieError:
    """GEN0530: a daemon (at `where`) does not have the path that was named."""
    there = f"other daemons reach it over {', '.join(paths)}" if paths else "it names no paths"
    remedies = {
        "dpdk": "start that daemon with --dpdk DEVICE",
        "tcp": "start that daemon with --peer-listen HOST:PORT",
        "shm": "start that daemon with --peer-listen unix:///PATH",
    }
    remedy = remedies.get(named, "install what the path needs on that machine (genie doctor)")
    return GenieError(
        "GEN0530",
        f"the daemon has no {named} path",
        Place(path=where) if where else None,
        there,
        f"{remedy}, or leave the choice to Genie (--transport auto)",
        {"transport": named, "paths": list(paths)},
    )


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


class NegotiationLog:
    """Appends what was negotiated to a JSONL file; starts it anew when it grew to `MAX_LOG`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def decide(self, request: OpenRequest, offer: Offer) -> Agreement:
        """`negotiate`, with the decision on record either way."""
        entry: dict[str, Any] = {"request": request.model_dump(), "offer": asdict(offer)}
        try:
            agreement = negotiate(request, offer)
        except GenieError as error:
            self._append({**entry, "refused": error.code})
            raise
        self._append({**entry, "answer": asdict(agreement)})
        return agreement

    def link(self, session: str, role: str, transport: str, choice: Mapping[str, Any]) -> None:
        """Record which path a connection of a session took; `choice` has plain JSON values."""
        entry = {"session": session, "role": role, "transport": transport, **choice}
        self._append({"link": entry})

    def _append(self, entry: dict[str, Any]) -> None:
        line = canonical.compact(entry).encode() + b"\n"
        with self._lock:
            try:
                if self.path.exists() and self.path.stat().st_size + len(line) > MAX_LOG:
                    self.path.replace(self.path.with_suffix(".old.jsonl"))
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                fd = os.open(self.path, flags, 0o600)
                try:
                    os.write(fd, line)
                finally:
                    os.close(fd)
            except OSError as error:
                raise GenieError(
                    "GEN0506",
                    "the negotiation cannot be logged",
                    Place(file=str(self.path)),
                    error.strerror,
                    "free space under the state directory",
                ) from None


@dataclass(frozen=True)
class Replayed:
    """One line of a log decided again; `same` says whether the decision stands."""

    line: int
    recorded: dict[str, Any]
    again: dict[str, Any]

    @property
    def same(self) -> bool:
        """Whether this version decides as the recorded one did, about all that it decided."""
        answer, again = self.recorded.get("answer"), self.again.get("answer")
        if isinstance(answer, dict) and isinstance(again, dict):
            return answer == {key: value for key, value in again.items() if key in answer}
        return self.recorded == self.again


def replay(path: Path) -> Iterator[Replayed]:
    """Decide every line of a negotiation log again. Raises GEN0507 for a line that is none."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
                if "link" in entry:
                    continue  # what two peers settled between them: nothing to decide here
                request = OpenRequest.model_validate(entry["request"])
                offer = _offer(entry["offer"])
                kind = "answer" if "answer" in entry else "refused"
                recorded = {kind: entry[kind]}
            except (ValueError, KeyError, TypeError) as error:
                raise GenieError(
                    "GEN0507",
                    "a line is no recorded negotiation",
                    Place(file=str(path), line=number),
                    str(error)[:200],
                    "name a file that genied wrote (negotiations.jsonl in its state directory)",
                ) from None
            yield Replayed(number, recorded, _decide(request, offer))


def _offer(data: dict[str, Any]) -> Offer:
    return Offer(
        version=str(data["version"]),
        torch=str(data["torch"]),
        threads=int(data["threads"]),
        protocol=str(data["protocol"]),
        formats=tuple(data["formats"]),
        features=tuple(data["features"]),
        paths=tuple(data.get("paths", ())),
    )


def _decide(request: OpenRequest, offer: Offer) -> dict[str, Any]:
    try:
        agreement = negotiate(request, offer)
    except GenieError as error:
        return {"refused": error.code}
    return {"answer": json.loads(canonical.compact(asdict(agreement)))}
