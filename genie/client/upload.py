"""Sending constants: only the chunks that a daemon lacks, resumed where a connection broke."""

from __future__ import annotations

import time
from collections.abc import Iterator

from genie.client.channel import Channel
from genie.client.link import LoadedPlan, not_as_compiled
from genie_schemas import messages as m
from genie_schemas.constants import CHUNK, ConstantFiles, chunk_digests, combine
from genie_schemas.errors import GenieError
from genie_transport import DMAHandle, Priority, TransferError, TransferFuture, TransferManager

__all__ = ["send_constants"]

WINDOW = 256 << 20
"""Bytes asked for at once: bounds handles and messages, and how much is sent between seals."""

_ROUNDS = 3
_STALL = 30.0


def send_constants(channel: Channel, data: TransferManager, session: str, plan: LoadedPlan) -> int:
    """Send what the daemon lacks of a plan's constants; returns the bytes sent.

    Raises GEN0315 to GEN0317 for weights files that cannot be used, GEN0425 when their content is
    not what the plan was compiled with, GEN0418 when they do not arrive.
    """
    request = m.PlanRequest(session=session, plan_digest=plan.digest)
    missing = channel.call("Missing", request, m.MissingReply, 120.0).constants
    sent = 0
    with ConstantFiles(plan.folder) as files:
        for _ in range(_ROUNDS):
            if not missing:
                return sent
            again: list[m.MissingConstant] = []
            for window in _windows(missing):
                sent += _send(channel, data, request, window, plan, files)
                again = _seal(channel, request, window)
            missing = again
    if missing:
        raise GenieError(
            "GEN0418",
            f"{len(missing)} constants did not arrive at the daemon",
            remedy="look at the connection and the daemon's log, then run again",
        )
    return sent


def _windows(missing: list[m.MissingConstant]) -> Iterator[list[m.MissingConstant]]:
    window: list[m.MissingConstant] = []
    size = 0
    for item in missing:
        if window and (size + item.bytes > WINDOW or len(window) >= 4096):
            yield window
            window, size = [], 0
        window.append(item)
        size += item.bytes
    if window:
        yield window


def _send(
    channel: Channel,
    data: TransferManager,
    request: m.PlanRequest,
    window: list[m.MissingConstant],
    plan: LoadedPlan,
    files: ConstantFiles,
) -> int:
    sources = {c.digest: c.source for c in plan.installed.plan.constants.values()}
    views = {item.digest: files.view(sources[item.digest]) for item in window}
    offered = [_offer(plan, item, views[item.digest], sources[item.digest]) for item in window]
    put = m.PutRequest(session=request.session, plan_digest=request.plan_digest, constants=offered)
    targets = channel.call("PutConstants", put, m.PutReply, 120.0).targets
    posts: list[TransferFuture] = []
    handles: list[DMAHandle] = []
    sent = 0
    try:
        for target in targets:
            view = views[target.digest]
            for chunk in target.chunks:
                part = view[chunk.index * CHUNK : (chunk.index + 1) * CHUNK]
                source = data.register(part)
                handles.append(source)
                there = DMAHandle.from_json(chunk.handle)
                posts.append(data.post(source, there, priority=Priority.WEIGHTS, wait=_STALL))
                sent += part.nbytes
        for post in posts:
            _wait(post, channel)
    except TransferError as error:
        raise error.to_genie_error() from None
    finally:
        for handle in handles:
            if data.failure is None:
                data.deregister(handle)
    return sent


def _offer(
    plan: LoadedPlan, item: m.MissingConstant, view: memoryview, source: str
) -> m.OfferedConstant:
    chunks = chunk_digests(view)
    if view.nbytes != item.bytes or combine(chunks, view.nbytes) != item.digest:
        raise not_as_compiled(plan, source)
    return m.OfferedConstant(
        digest=item.digest, bytes=item.bytes, chunks=[chunk.hex() for chunk in chunks]
    )


def _wait(post: TransferFuture, channel: Channel) -> None:
    """Wait for one chunk as long as it or the others make progress and the daemon lives."""
    quiet = time.monotonic() + _STALL
    progress = -1.0
    while True:
        try:
            error = post.exception(0.25)
        except TimeoutError:
            lost = channel.lost()
            if lost is not None:
                raise lost from None
            if post.progress() > progress:
                progress, quiet = post.progress(), time.monotonic() + _STALL
            if time.monotonic() > quiet:
                post.cancel()
                raise GenieError("GEN0418", "the daemon takes no more constants") from None
            continue
        # A chunk that was refused (withdrawn meanwhile) is asked for again in the next round.
        if error is not None and error.code not in ("GEN0623", "GEN0627", "GEN0630"):
            lost = channel.lost()
            raise lost if lost is not None else error
        return


def _seal(
    channel: Channel, request: m.PlanRequest, window: list[m.MissingConstant]
) -> list[m.MissingConstant]:
    seal = m.SealRequest(
        session=request.session,
        plan_digest=request.plan_digest,
        digests=[item.digest for item in window],
    )
    return channel.call("Seal", seal, m.MissingReply, 120.0).constants
