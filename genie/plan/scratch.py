"""How many bytes a program holds at its peak, as an expression over the plan's dimensions.

Each value's bytes are one product: a number times sizes. What is live at one call is a sum of such
products, kept as {sizes: number}; the peak is the largest of those sums. Where none is the largest
for every size, `max(…)` of the candidates is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from genie.graph.ir import Node, Value
from genie_schemas.types import parse_type

MAX_CANDIDATES = 4

Sum = Mapping[str, int]


def byte_terms(type_text: str) -> tuple[str, int]:
    """(symbolic factor, number): "f32[batch,3,b]" gives ("batch*b", 12)."""
    factors = parse_type(type_text).bytes_text().split("*")
    return "*".join(factors[:-1]), int(factors[-1])


def scratch_text(nodes: Sequence[Node], outputs: Iterable[str], table: Mapping[str, Value]) -> str:
    """The peak bytes of the values that `nodes` create, views counted with their base."""
    created = {
        v.storage: table[v.name].type
        for node in reversed(nodes)
        for v in node.results
        if v is not None
    }
    foreign = {table[n].storage for node in nodes for n in node.reads()} - set(created)
    last: dict[int, int] = {}
    for i, node in enumerate(nodes):
        for name in (*node.reads(), *node.writes()):
            last[table[name].storage] = i
    for name in outputs:
        last[table[name].storage] = len(nodes)
    live: Counter[str] = Counter()
    held: dict[int, tuple[str, int]] = {}
    peaks: list[dict[str, int]] = []
    for i, node in enumerate(nodes):
        for value in node.results:
            if value is None or value.storage in held or value.storage in foreign:
                continue
            held[value.storage] = byte_terms(created[value.storage])
            factor, number = held[value.storage]
            live[factor] += number
        peaks.append({f: n for f, n in live.items() if n})
        for storage in [s for s in held if last[s] == i]:
            factor, number = held.pop(storage)
            live[factor] -= number
    return sum_text(peaks)


def sum_text(peaks: Iterable[Sum]) -> str:
    """`max` over sums, those that another one dominates left out."""
    kept: list[dict[str, int]] = []
    for peak in peaks:
        if any(_dominates(other, peak) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(peak, other)]
        kept.append(dict(peak))
    if len(kept) > MAX_CANDIDATES:
        joined: Counter[str] = Counter()
        for peak in kept:
            for factor, number in peak.items():
                joined[factor] = max(joined[factor], number)
        kept = [dict(joined)]
    texts = sorted(_text(peak) for peak in kept)
    if not texts:
        return "0"
    return texts[0] if len(texts) == 1 else f"max({','.join(texts)})"


def _dominates(a: Sum, b: Sum) -> bool:
    return all(a.get(factor, 0) >= number for factor, number in b.items())


def _text(peak: Sum) -> str:
    terms = [f"{f}*{n}" if f else str(n) for f, n in sorted(peak.items(), reverse=True) if n]
    return "+".join(terms) or "0"
