"""Which node serves which device of a plan."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from genie.client.link import NodeLink
from genie_schemas.errors import GenieError
from genie_schemas.plan import ExecutionPlan

__all__ = ["assign", "parse_on"]


def parse_on(texts: Sequence[str]) -> list[tuple[str | None, str]]:
    """The `--on` options as (plan device or None, endpoint); GEN0422 when they are mixed up."""
    found: list[tuple[str | None, str]] = []
    for text in texts:
        name, equals, endpoint = text.partition("=")
        if equals and "/" not in name and ":" not in name:
            found.append((name, endpoint))
        else:
            found.append((None, text))
    named = [name for name, _ in found if name is not None]
    if named and len(named) != len(found):
        raise _mismatch("some endpoints name a device and others do not")
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise _mismatch(f"the device {twice[0]!r} is bound twice")
    return found


def assign(
    plan: ExecutionPlan, nodes: Sequence[tuple[str | None, NodeLink]]
) -> dict[str, NodeLink]:
    """Plan device → node: by name, or in the plan's order; one node alone serves all. GEN0422."""
    devices = list(plan.devices)
    ordered = [node for name, node in nodes if name is None]
    if len(ordered) == 1:
        return dict.fromkeys(devices, ordered[0])
    if ordered:
        if len(ordered) != len(devices):
            raise _mismatch(
                f"{len(ordered)} endpoints for {len(devices)} devices ({', '.join(devices)})"
            )
        return dict(zip(devices, ordered, strict=True))
    bound: dict[str, NodeLink] = {}
    for name, node in nodes:
        if name not in plan.devices:
            close = difflib.get_close_matches(str(name), devices, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise _mismatch(f"the plan has no device {name!r}{hint}")
        bound[name] = node
    unbound = [device for device in devices if device not in bound]
    if unbound:
        raise _mismatch(f"no endpoint serves {', '.join(unbound)}")
    return bound


def _mismatch(message: str) -> GenieError:
    return GenieError(
        "GEN0422",
        message,
        remedy="give one --on for all devices, one for each in the plan's order, or "
        "--on DEVICE=ENDPOINT for each",
    )
