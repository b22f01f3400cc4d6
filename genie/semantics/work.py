"""How much work calls are, and which of them the longest chain of work goes through."""

from __future__ import annotations

from genie.semantics.operators import ATTENTION, CONVOLUTION, LAYOUT, PRODUCT
from genie.semantics.structure import Call, Structure

__all__ = ["criticality", "work_of"]


def work_of(s: Structure, call: Call) -> int:
    """Arithmetic operations, two for a multiply-add; symbolic sizes count as one.

    A ranking, not a prediction of time: an operator without a formula of its own counts the
    elements that it makes, and one that only moves them counts nothing.
    """
    made = s.result(call)
    if made is None or call.name in LAYOUT:
        return 0
    if call.name == "linear":
        weight = call.tensor(1)
        inner = s.tensors[weight].shape[-1] if weight is not None else 1
        return 2 * made.size * (inner or 1)
    if call.name in CONVOLUTION:
        weight = call.tensor(1)
        filters = s.tensors[weight] if weight is not None else None
        per = filters.size // (filters.shape[0] or 1) if filters is not None else 1
        return 2 * made.size * max(1, per)
    if call.name in PRODUCT:
        first = call.tensor(1 if call.name in ("addmm", "baddbmm") else 0)
        inner = s.tensors[first].shape[-1] if first is not None and s.tensors[first].shape else 1
        return 2 * made.size * (inner or 1)
    if call.name in ATTENTION:
        key = call.tensor(1)
        keys = s.tensors[key].shape[-2] if key is not None else 1
        return 4 * made.size * (keys or 1)
    return made.size


def criticality(s: Structure, work: list[int]) -> list[float]:
    """Call → the longest chain of work through it, as a share of the longest of all (0 to 1)."""
    ahead = [0] * len(s.calls)
    for n in range(len(s.calls)):
        ahead[n] = work[n] + max((ahead[m] for m in s.needs[n]), default=0)
    behind = [0] * len(s.calls)
    for n in reversed(range(len(s.calls))):
        behind[n] = work[n] + max((behind[m] for m in s.users[n]), default=0)
    longest = max(ahead, default=0)
    if not longest:
        return [1.0] * len(s.calls)
    return [(ahead[n] + behind[n] - work[n]) / longest for n in range(len(s.calls))]
