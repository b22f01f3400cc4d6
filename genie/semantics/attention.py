"""Attention, fused or spelled out: where it is, whether it is causal, whose keys it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genie.semantics.operators import ATTENTION, COMPARISON, LAYOUT, PRODUCT, SOFTMAX, TRIANGLE
from genie.semantics.structure import Call, Structure, bits

__all__ = ["Attention", "attentions", "kept_rows"]


@dataclass(frozen=True)
class Attention:
    """One attention. `query` and `keys` are lengths, None where symbolic."""

    call: int
    """The fused call, or the softmax."""
    end: int
    """The call that takes the values: the fused one, or the product behind the softmax."""
    query: int | None
    keys: int | None
    causal: bool
    key_calls: int
    """The calls that keys and values depend on, as a bit mask."""
    query_calls: int
    cache: tuple[int, ...]
    """The state, or the inputs that new rows are joined to, that keys and values come from."""
    taken: tuple[int, ...]
    """The keys and the values."""

    @property
    def cached(self) -> bool:
        """Whether keys or values come from a cache."""
        return bool(self.cache)


def attentions(s: Structure) -> tuple[Attention, ...]:
    """Every attention, in order."""
    found = []
    for call in s.calls:
        if call.name in ATTENTION:
            found.append(_fused(s, call))
        elif call.name in SOFTMAX:
            spelled = _spelled(s, call)
            if spelled is not None:
                found.append(spelled)
    return tuple(found)


def _fused(s: Structure, call: Call) -> Attention:
    query, key, value = (call.tensor(i) for i in range(3))
    mask = call.tensor(3, "attn_mask")
    causal = call.value(5, "is_causal") is True
    if "flash" in call.name:
        causal = call.value(4, "is_causal") is True
    if mask is not None:
        causal = causal or _causal_mask(s, mask)
    return _made(s, call, query, key, value, causal)


def _made(
    s: Structure,
    call: Call,
    query: int | None,
    key: int | None,
    value: int | None,
    causal: bool,
) -> Attention:
    above_keys = _above(s, key, call) | _above(s, value, call)
    kept = [c for n in (key, value) if (c := _cache(s, n)) is not None]
    return Attention(
        call.number,
        call.number,
        _length(s, query),
        _length(s, key),
        causal,
        above_keys,
        _above(s, query, call),
        tuple(dict.fromkeys(kept)),
        tuple(n for n in (key, value) if n is not None),
    )


def _length(s: Structure, number: int | None) -> int | None:
    shape = s.tensors[number].shape if number is not None else ()
    return shape[-2] if len(shape) >= 2 else None


def _above(s: Structure, number: int | None, call: Call) -> int:
    """The calls that a tensor depends on, writes into its memory before `call` included."""
    if number is None:
        return 0
    maker = s.tensors[number].call
    mask = s.above[maker] if maker is not None else 0
    for other in s.needs[call.number]:
        if number in s.calls[other].mutates:
            mask |= s.above[other]
    return mask


def _spelled(s: Structure, softmax: Call) -> Attention | None:
    """Scores of a product of two computed tensors, softmax, and a product with a third."""
    scores = softmax.tensor(0)
    made = s.result(softmax)
    if scores is None or made is None or made.rank < 3:
        return None
    first = _product_before(s, softmax)
    second = _product_after(s, softmax)
    if first is None or second is None:
        return None
    shape = made.shape
    added = s.above[softmax.number] & ~s.above[first.number]
    causal = _causal_among(s, added, softmax)
    operands = [n for n in second.reads if not _carries(s, n, softmax)]
    key = first.tensor(1, "mat2")
    query = first.tensor(0)
    found = _made(s, softmax, query, operands[0] if operands else key, key, causal)
    return Attention(
        softmax.number,
        second.number,
        shape[-2],
        shape[-1],
        causal,
        found.key_calls,
        found.query_calls,
        found.cache,
        found.taken,
    )


def _carries(s: Structure, number: int, call: Call) -> bool:
    maker = s.tensors[number].call
    return maker is not None and bool(s.above[maker] >> call.number & 1)


_BETWEEN = frozenset(
    "add sub mul div masked_fill where to _to_copy view reshape expand clamp max maximum type_as"
    " dropout clone unsqueeze squeeze tanh slice getitem neg float softcap pow".split()
)


def _product_before(s: Structure, call: Call) -> Call | None:
    """The product that made the scores, back through scaling and masking."""
    waiting = list(call.reads)
    seen: set[int] = set()
    for _ in range(64):
        if not waiting:
            return None
        number = waiting.pop(0)
        if number in seen:
            continue
        seen.add(number)
        maker = s.tensors[number].call
        if maker is None:
            continue
        made = s.calls[maker]
        if made.name in PRODUCT:
            operands = [made.tensor(0), made.tensor(1, "mat2")]
            if made.name in ("baddbmm", "addmm"):
                operands = [made.tensor(1), made.tensor(2)]
            if all(n is not None and s.tensors[n].origin in ("result", "state") for n in operands):
                return made
            continue
        if made.name in _BETWEEN:
            waiting.extend(made.reads)
    return None


def _product_after(s: Structure, call: Call) -> Call | None:
    """The product that takes the weights, on through casts and dropout."""
    waiting = list(s.users[call.number])
    for _ in range(32):
        if not waiting:
            return None
        user = s.calls[waiting.pop(0)]
        if user.name in PRODUCT:
            return user
        if user.name in _BETWEEN:
            waiting.extend(s.users[user.number])
    return None


def _causal_mask(s: Structure, number: int) -> bool:
    tensor = s.tensors[number]
    if tensor.call is None:
        return _square(s, number)
    return _causal_among(s, s.above[tensor.call], None)


def _square(s: Structure, number: int) -> bool:
    """A square that is no parameter: a mask kept with the model."""
    tensor = s.tensors[number]
    if tensor.origin != "weight" or tensor.learned or tensor.rank < 2 or tensor.dtype[0] == "i":
        return False
    return tensor.shape[-1] == tensor.shape[-2] and (tensor.shape[-1] or 0) > 1


def _causal_among(s: Structure, mask: int, softmax: Call | None) -> bool:
    """Whether the calls that made a mask order positions: a triangle, or places compared."""
    for number in bits(mask):
        call = s.calls[number]
        if call is softmax:
            continue
        if call.name in TRIANGLE:
            return True
        if call.name in COMPARISON and _compares_places(s, call):
            return True
        if any(_square(s, n) for n in call.reads if not s.tensors[n].learned):
            return True
    return False


def _compares_places(s: Structure, call: Call) -> bool:
    """Whether both sides are places: of queries along one axis, of keys along the other."""
    left, right = call.tensor(0), call.tensor(1)
    made = s.result(call)
    if left is None or right is None or made is None or made.rank < 2:
        return False
    sides = [s.tensors[left], s.tensors[right]]
    if any(side.floating for side in sides):
        return False
    counted = [_counts(s, n) for n in (left, right)]
    # With a cache, the places of the new tokens may be an input.
    return all(counted) or (any(counted) and any(t.origin == "state" for t in s.tensors))


def _counts(s: Structure, number: int) -> bool:
    maker = s.tensors[number].call
    return maker is not None and any(
        s.calls[n].name in ("arange", "cumsum", "range", "iota") for n in bits(s.above[maker])
    )


_WRITES = frozenset("index_copy index_put scatter slice_scatter select_scatter copy".split())


def _cache(s: Structure, number: int | None) -> int | None:
    """The state or input that keys or values are, through views, copies and joins."""
    seen: set[int] = set()
    for _ in range(16):
        if number is None or number in seen:
            return None
        seen.add(number)
        tensor = s.tensors[number]
        if tensor.origin == "state":
            return number
        if tensor.call is None:
            return None
        made = s.calls[tensor.call]
        if made.name == "cat":
            kept = [n for n in made.reads if s.tensors[n].origin in ("input", "state")]
            return kept[0] if kept else None
        if made.name in _WRITES:
            first = made.tensor(0)
            if first is not None and s.tensors[first].origin in ("input", "state"):
                return first
        number = made.tensor(0)
    return None


def kept_rows(s: Structure, found: Sequence[Attention]) -> frozenset[int]:
    """State and inputs that are caches: that attention reads, or that its keys are written into.

    A prompt attends to its own keys and leaves them in the cache for the calls that follow.
    """
    caches = {s.base[n] for a in found for n in a.cache}
    rows = {m for a in found for n in a.taken for m in _moved(s, n)}
    for call in s.calls:
        into = {s.base[n] for n in call.mutates if s.tensors[s.base[n]].origin == "state"}
        given = [n for n in call.reads if s.base[n] not in into]
        if into and any(rows & set(_moved(s, n)) for n in given):
            caches |= into
    return frozenset(caches)


def _moved(s: Structure, number: int) -> Iterator[int]:
    """A tensor, and those that it is only an arrangement of; constants end the chain."""
    for _ in range(16):
        tensor = s.tensors[number]
        if tensor.call is None:
            return
        yield number
        call = s.calls[tensor.call]
        first = call.tensor(0)
        if call.name not in LAYOUT or first is None:
            return
        number = first
