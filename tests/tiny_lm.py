"""A language model small enough to write its plan by hand: prefill, decode, generate, two caches.

Two layers of single-head attention with residuals, positions added to the embedding, right-padded
prompts of unequal lengths. On one device, or embedding and first layer on d0 and second layer and
head on d1: the token then travels d1→d0 every turn, the hidden row d0→d1. On three, the head is on
d2 and the token travels d2→d0→d1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.plans_by_hand import Array, HandMade, finish, policy, value

VOCABULARY = 64
WIDTH = 32
CAPACITY = 48
PROMPT = 16
BATCH = 4
SCALE = float(WIDTH**-0.5)

_ROW, _ROWS = f"f32[batch,{WIDTH}]", f"f32[batch,seq,{WIDTH}]"
_CACHE, _SQUARE = f"f32[batch,{CAPACITY},{WIDTH}]", f"f32[{WIDTH},{WIDTH}]"
_LOGITS, _COUNT = f"f32[batch,{VOCABULARY}]", "i64[batch]"
_MINUS = {"f": "-inf"}


def weights(seed: int = 0) -> dict[str, Array]:
    """Wide enough apart that greedy generation wanders through the vocabulary."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> Array:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    made = {
        "embed": normal(VOCABULARY, WIDTH, scale=1.0),
        "positions": normal(CAPACITY, WIDTH, scale=0.7),
        "head": normal(WIDTH, VOCABULARY, scale=1.0),
    }
    for layer in range(2):
        for part in "qkvo":
            made[f"w{part}{layer}"] = normal(WIDTH, WIDTH, scale=0.3)
    return made


def full_forward(w: dict[str, Array], ids: list[int]) -> Array:
    """Logits f32[len(ids), VOCABULARY] of one sequence, without any cache."""
    x = w["embed"][ids] + w["positions"][: len(ids)]
    for layer in range(2):
        q, k, v = (x @ w[f"w{part}{layer}"] for part in "qkv")
        scores = np.where(np.tri(len(ids), dtype=bool), q @ k.T * SCALE, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        x = x + (scores / scores.sum(-1, keepdims=True)) @ v @ w[f"wo{layer}"]
    return np.asarray(x @ w["head"])


def greedy(
    w: dict[str, Array], prompt: list[int], count: int, eos: tuple[int, ...] = ()
) -> list[int]:
    """The tokens that follow a prompt, -1 after the end; each from a full forward."""
    ids, found = list(prompt), list[int]()
    for _ in range(count):
        if found and (found[-1] in eos or found[-1] == -1):
            found.append(-1)
            continue
        found.append(int(full_forward(w, ids)[-1].argmax()))
        ids.append(found[-1])
    return found


def padded(prompts: list[list[int]]) -> dict[str, Array]:
    """The inputs of prefill and generate for these prompts."""
    ids = np.zeros((len(prompts), max(map(len, prompts))), np.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    return {"input_ids": ids, "lengths": np.array([len(p) for p in prompts], np.int64)}


def tiny_lm(
    folder: Path, *, devices: int = 1, eos: tuple[int, ...] = (), seed: int = 0, name: str = ""
) -> HandMade:
    """Entry points `prefill` and `decode`, the loop `generate`; `devices` is 1 to 3.

    prefill(input_ids i64[batch,seq], lengths i64[batch]) and decode(token i64[batch]) give logits
    f32[batch,VOCABULARY]; generate takes the inputs of prefill. Rows pad with token 0.
    """
    first, last, head = {1: ("d0",) * 3, 2: ("d0", "d1", "d1"), 3: ("d0", "d1", "d2")}[devices]
    book = _Steps(first, last, head)
    book.prefill()
    book.decode()
    caches = {f"{part}{layer}": (first, last)[layer] for layer in range(2) for part in "kv"}
    state = {
        name: {
            "type": _CACHE,
            "device": device,
            "initial": "zeros",
            "version": 0,
            "update": "append",
        }
        for name, device in caches.items()
    }
    for layer, device in enumerate((first, last)):
        state[f"cursor{layer}"] = {
            "type": _COUNT,
            "device": device,
            "initial": "zeros",
            "version": 0,
            "update": "replace",
        }
    data = {
        "name": name or f"tiny-lm-{devices}",
        "format_version": "1.1",
        "min_reader": "1.1",
        "requires": ["compute.aten", "state.kv", "loop.generate"],
        "dims": {"batch": {"min": 1, "max": BATCH}, "seq": {"min": 1, "max": PROMPT}},
        "devices": {d: {"kind": "any", "needs": 0} for d in sorted({first, last, head})},
        "entrypoints": {
            "prefill": {
                "inputs": [
                    {"name": "input_ids", "type": "i64[batch,seq]", "device": first},
                    {"name": "lengths", "type": _COUNT, "device": first},
                ],
                "outputs": [{"name": "logits", "value": "prefill.logits"}],
                "steps": book.ids("prefill"),
            },
            "decode": {
                "inputs": [{"name": "token", "type": _COUNT, "device": head}],
                "outputs": [{"name": "logits", "value": "decode.logits"}],
                "steps": book.ids("decode"),
            },
        },
        "state": state,
        "programs": _programs(),
        "values": book.values,
        "policies": policy(),
        "steps": [step for _, step in book.steps],
        "loops": {
            "generate": {
                "entry": "prefill",
                "body": "decode",
                "carry": ["token"],
                "until": "sampled",
                "sample": {
                    "logits": "logits",
                    "token": "token",
                    "lengths": "lengths",
                    "capacity": CAPACITY,
                    "eos": list(eos),
                    "pad": 0,
                },
            }
        },
    }
    return finish(folder, data, weights(seed))


class _Steps:
    """The steps of both entry points, in order, and the values that they write."""

    def __init__(self, first: str, last: str, head: str) -> None:
        self.first, self.last, self.head = first, last, head
        self.steps: list[tuple[str, dict[str, Any]]] = []
        self.values = {
            "input_ids": value("i64[batch,seq]", first, "batch*seq*8"),
            "lengths": value(_COUNT, first, "batch*8"),
            "token": value(_COUNT, head, "batch*8"),
        }

    def ids(self, entry: str) -> list[str]:
        return [step["id"] for name, step in self.steps if name == entry]

    def prefill(self) -> None:
        first, last = self.first, self.last
        self.load("prefill")
        self.compute("prefill", "embed", first, "input_ids embed positions", {"x0": _ROWS})
        self.layer("prefill", 0, first, "prefill.x0 lengths", _ROWS)
        lengths = self.move("prefill", "lengths", _COUNT, first, last)
        x1 = self.move("prefill", "prefill.x1", _ROWS, first, last)
        self.layer("prefill", 1, last, f"{x1} {lengths}", _ROWS)
        x2 = self.move("prefill", "prefill.x2", _ROWS, last, self.head)
        lengths = self.move("prefill", lengths, _COUNT, last, self.head)
        self.compute("prefill", "head", self.head, f"{x2} {lengths} head", {"logits": _LOGITS})
        self.give("prefill", "prefill.logits", self.head)

    def decode(self) -> None:
        first, last = self.first, self.last
        self.load("decode")
        token = self.move("decode", "token", _COUNT, self.head, first)
        if last not in (first, self.head):
            self.move("decode", token, _COUNT, first, last)
        self.compute("decode", "embed", first, f"{token} cursor0 embed positions", {"x0": _ROW})
        self.layer("decode", 0, first, "decode.x0 cursor0", _ROW)
        x1 = self.move("decode", "decode.x1", _ROW, first, last)
        self.layer("decode", 1, last, f"{x1} cursor1", _ROW)
        x2 = self.move("decode", "decode.x2", _ROW, last, self.head)
        self.compute("decode", "head", self.head, f"{x2} head", {"logits": _LOGITS})
        self.give("decode", "decode.logits", self.head)

    def load(self, entry: str) -> None:
        """Both entry points load the weights, each in steps of its own."""
        early = ["embed", "positions", *(f"w{part}0" for part in "qkvo")]
        late = [f"w{part}1" for part in "qkvo"]
        if self.last == self.head:
            late.append("head")
        loads = [(self.first, early), (self.last, late)]
        if self.last != self.head:
            loads.append((self.head, ["head"]))
        for device, names in loads:
            step = f"{entry}.{names[-1]}/load@{device}"
            self.step(entry, {"id": step, "kind": "load", "device": device, "reads": names})

    def layer(self, entry: str, layer: int, device: str, reads: str, kind: str) -> None:
        """Attention that writes its keys and values into the cache and moves the cursor on."""
        wanted = " ".join(f"w{part}{layer}" for part in "qkvo")
        cursor = f"cursor{layer}"
        effect = [{"state": f"{part}{layer}", "expects": "entry"} for part in "kv"]
        effect.append({"state": cursor, "expects": "entry", "value": f"{entry}.{cursor}"})
        self.compute(
            entry,
            "layer",
            device,
            f"{reads} k{layer} v{layer} {wanted}",
            {f"x{layer + 1}": kind, cursor: _COUNT},
            name=f"layer{layer}",
            effect=effect,
        )

    def compute(
        self,
        entry: str,
        program: str,
        device: str,
        reads: str,
        writes: dict[str, str],
        name: str = "",
        **more: Any,
    ) -> None:
        names = {f"{entry}.{label}": kind for label, kind in writes.items()}
        for label, kind in names.items():
            self.values[label] = value(kind, device, _nbytes(kind))
        step = {
            "id": f"{entry}.{name or program}/compute@{device}",
            "kind": "compute",
            "device": device,
            "program": f"{entry}.{program}",
            "reads": reads.split(),
            "writes": list(names),
            "priority": entry,
        }
        self.step(entry, step | more)

    def move(self, entry: str, name: str, kind: str, src: str, dst: str) -> str:
        """The value's name on `dst`, after a transfer where one is needed."""
        if src == dst:
            return name
        moved = f"{name}@{dst}"
        self.values[moved] = value(kind, dst, _nbytes(kind))
        step = f"{name}/transfer@{src}->{dst}"
        ends = {"src": src, "dst": dst, "reads": [name], "writes": [moved]}
        self.step(entry, {"id": step, "kind": "transfer", **ends})
        return moved

    def give(self, entry: str, name: str, device: str) -> None:
        step = f"{name}/return@{device}"
        self.step(entry, {"id": step, "kind": "return", "device": device, "reads": [name]})

    def step(self, entry: str, step: dict[str, Any]) -> None:
        self.steps.append((entry, step))


def _nbytes(kind: str) -> str:
    return {
        _ROWS: f"batch*seq*{WIDTH * 4}",
        _ROW: f"batch*{WIDTH * 4}",
        _LOGITS: f"batch*{VOCABULARY * 4}",
        _COUNT: "batch*8",
    }[kind]


def _op(out: str | None, op: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A call; text arguments are values of the program."""

    def tagged(item: Any) -> Any:
        if isinstance(item, str):
            return {"v": item}
        if isinstance(item, float):
            return {"f": item.hex()}
        return [tagged(i) for i in item] if isinstance(item, list) else item

    call: dict[str, Any] = {"out": [out], "op": f"aten.{op}", "args": [tagged(a) for a in args]}
    return call | ({"kwargs": kwargs} if kwargs else {})


def _program(
    inputs: dict[str, str], outputs: dict[str, str], scratch: str, *ops: dict[str, Any]
) -> dict[str, Any]:
    return {
        "inputs": [{"name": n, "type": t} for n, t in inputs.items()],
        "outputs": [{"name": n, "type": t} for n, t in outputs.items()],
        "scratch_bytes": scratch,
        "ops": list(ops),
    }


def _programs() -> dict[str, Any]:
    seq, batch = {"e": "seq"}, {"e": "batch"}
    tables = {"embed": f"f32[{VOCABULARY},{WIDTH}]", "positions": f"f32[{CAPACITY},{WIDTH}]"}
    caches = {"k": _CACHE, "v": _CACHE}
    parts = {f"w{part}": _SQUARE for part in "qkvo"}
    head = f"f32[{WIDTH},{VOCABULARY}]"
    project = [_op(part, "matmul.default", "x", f"w{part}") for part in "qkv"]
    i64 = {"dtype": {"dtype": "i64"}}
    mixed = [
        _op("scaled", "mul.Tensor", "scores", SCALE),
        _op("masked", "masked_fill.Scalar", "scaled", "hidden", _MINUS),
        _op("weights", "softmax.int", "masked", -1),
    ]
    prefill_layer = _program(
        {"x": _ROWS, "lengths": _COUNT, **caches, **parts},
        {"y": _ROWS, "next": _COUNT},
        f"batch*seq*({WIDTH * 40}+seq*24)+4096",
        *project,
        *(
            op
            for part in "kv"
            for op in (
                _op(f"{part}.slot", "slice.Tensor", part, 1, 0, seq),
                _op(None, "copy_.default", f"{part}.slot", f"{part}.new"),
            )
        ),
        _op("turned", "transpose.int", "k.new", 1, 2),
        _op("scores", "matmul.default", "q", "turned"),
        _op("ones", "ones.default", [seq, seq], dtype={"dtype": "bool"}),
        _op("hidden", "triu.default", "ones", 1),
        *mixed,
        _op("seen", "matmul.default", "weights", "v.new"),
        _op("out", "matmul.default", "seen", "wo"),
        _op("y", "add.Tensor", "x", "out"),
        _op("next", "clone.default", "lengths"),
    )
    decode_layer = _program(
        {"x": _ROW, "cursor": _COUNT, **caches, **parts},
        {"y": _ROW, "next": _COUNT},
        f"batch*{WIDTH * 40 + CAPACITY * 48}+4096",
        *project,
        _op("rows", "arange.default", batch, **i64),
        *(
            _op(None, "index_put_.default", part, ["rows", "cursor"], f"{part}.new")
            for part in "kv"
        ),
        _op("query", "unsqueeze.default", "q", 1),
        _op("turned", "transpose.int", "k", 1, 2),
        _op("scores", "matmul.default", "query", "turned"),
        _op("places", "arange.default", CAPACITY, **i64),
        _op("ends", "view.default", "cursor", [batch, 1, 1]),
        _op("hidden", "gt.Tensor", "places", "ends"),
        *mixed,
        _op("seen", "matmul.default", "weights", "v"),
        _op("flat", "squeeze.dim", "seen", 1),
        _op("out", "matmul.default", "flat", "wo"),
        _op("y", "add.Tensor", "x", "out"),
        _op("next", "add.Tensor", "cursor", 1),
    )
    for layer in (prefill_layer, decode_layer):
        for item, part in zip(layer["ops"][1:3], "kv", strict=True):
            item["out"] = [f"{part}.new"]
    return {
        "prefill.embed": _program(
            {"ids": "i64[batch,seq]", **tables},
            {"x": _ROWS},
            f"batch*seq*{WIDTH * 12}+4096",
            _op("rows", "embedding.default", "embed", "ids"),
            _op("places", "slice.Tensor", "positions", 0, 0, seq),
            _op("x", "add.Tensor", "rows", "places"),
        ),
        "prefill.layer": prefill_layer,
        "prefill.head": _program(
            {"x": _ROWS, "lengths": _COUNT, "head": head},
            {"logits": _LOGITS},
            f"batch*{VOCABULARY * 8 + WIDTH * 8}+4096",
            _op("at", "sub.Tensor", "lengths", 1),
            _op("rows", "arange.default", batch, **i64),
            _op("ends", "index.Tensor", "x", ["rows", "at"]),
            _op("logits", "matmul.default", "ends", "head"),
        ),
        "decode.embed": _program(
            {"token": _COUNT, "cursor": _COUNT, **tables},
            {"x": _ROW},
            f"batch*{WIDTH * 12}+4096",
            _op("rows", "embedding.default", "embed", "token"),
            _op("places", "embedding.default", "positions", "cursor"),
            _op("x", "add.Tensor", "rows", "places"),
        ),
        "decode.layer": decode_layer,
        "decode.head": _program(
            {"x": _ROW, "head": head},
            {"logits": _LOGITS},
            f"batch*{VOCABULARY * 8}+4096",
            _op("logits", "matmul.default", "x", "head"),
        ),
    }
