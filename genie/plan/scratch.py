"""How many bytes a program holds at its peak, as an expression over the plan's dimensions.

Each value's bytes are one product: a number times sizes. What is live at one call is a sum of such
products, kept as {sizes: number}; the peak is the largest of those sums. Where none is the largest
for every size, `max(…)` of the candidates is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from genie.graph.ir import Body, Node, Value
from genie_schemas.args import ProgramRef
from genie_schemas.types import parse_type

MAX_CANDIDATES = 4

Sum = Mapping[str, int]


def byte_terms(type_text: str) -> tuple[str, int]:
    """(symbolic factor, number): "f32[batch,3,b]" gives ("batch*b", 12)."""
    factors = parse_type(type_text).bytes_text().split("*")
    return "*".join(factors[:-1]), int(factors[-1])


def scratch_text(
    nodes: Sequence[Node],
    outputs: Sequence[str],
    table: Mapping[str, Value],
    bodies: Mapping[str, Body] | None = None,
) -> str:
    """The peak bytes that `nodes` hold beyond what they are given, views counted with their base.

    A call of control flow holds, beside its results, what the largest of its `bodies` holds.

    At the end each output gets memory of its own: one that is a view, or that shares memory with
    an input or another output, is copied while the others are still held.
    """
    return sum_text(_peaks(nodes, outputs, table, bodies or {}))


def _peaks(
    nodes: Sequence[Node],
    outputs: Sequence[str],
    table: Mapping[str, Value],
    bodies: Mapping[str, Body],
) -> list[dict[str, int]]:
    whole, last = _storages(nodes, outputs, table)
    live: Counter[str] = Counter()
    held: dict[int, tuple[str, int]] = {}
    peaks: list[dict[str, int]] = []
    for i, node in enumerate(nodes):
        for value in node.results:
            if value is None or whole.get(value.storage) != value.name:
                continue
            held[value.storage] = byte_terms(value.type)
            factor, number = held[value.storage]
            live[factor] += number
        inside = _joined(
            peak
            for name in _called(node)
            for body in (bodies[name],)
            for peak in _peaks(body.nodes, body.outputs, body.table, bodies)
        )
        peaks.append({f: n for f, n in (live + inside).items() if n})
        for storage in [s for s in held if last[s] == i]:
            factor, number = held.pop(storage)
            live[factor] -= number
    taken: set[int] = set()
    for name in outputs:
        value = table[name]
        if whole.get(value.storage) != name or value.storage in taken:
            factor, number = byte_terms(value.type)
            live[factor] += number
        taken.add(value.storage)
    peaks.append({f: n for f, n in live.items() if n})
    return peaks


def _called(node: Node) -> list[str]:
    """Names of the bodies that a call of control flow runs."""
    return [arg.key for arg in node.args if isinstance(arg, ProgramRef)]


def _joined(sums: Iterable[Sum]) -> Counter[str]:
    """A sum that dominates all of these."""
    joined: Counter[str] = Counter()
    for one in sums:
        for factor, number in one.items():
            joined[factor] = max(joined[factor], number)
    return joined


def _storages(
    nodes: Sequence[Node], outputs: Sequence[str], table: Mapping[str, Value]
) -> tuple[dict[int, str], dict[int, int]]:
    """Storage that the nodes create → the value that is all of it; storage → its last use."""
    foreign: set[int] = set()
    whole: dict[int, str] = {}
    last: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for name in node.reads():
            last[table[name].storage] = i
            if table[name].storage not in whole:
                foreign.add(table[name].storage)
        for value in node.results:
            if value is not None:
                last[value.storage] = i
                if value.storage not in foreign:
                    whole.setdefault(value.storage, value.name)
    last.update({table[name].storage: len(nodes) for name in outputs})
    return whole, last


def sum_text(peaks: Iterable[Sum]) -> str:
    """`max` over sums, those that another one dominates left out."""
    kept: list[dict[str, int]] = []
    for peak in peaks:
        if any(_dominates(other, peak) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(peak, other)]
        kept.append(dict(peak))
    if len(kept) > MAX_CANDIDATES:
        kept = [dict(_joined(kept))]
    texts = sorted(_text(peak) for peak in kept)
    if not texts:
        return "0"
    return texts[0] if len(texts) == 1 else f"max({','.join(texts)})"


def _dominates(a: Sum, b: Sum) -> bool:
    return all(a.get(factor, 0) >= number for factor, number in b.items())


def _text(peak: Sum) -> str:
    terms = [f"{f}*{n}" if f else str(n) for f, n in sorted(peak.items(), reverse=True) if n]
    return "+".join(terms) or "0"
