"""What the corpus is made of: labelled models, and the split of their families.

Labels come from each architecture's documentation, cited beside the model, and were written before
the patterns that are measured with them. A model's `regions` map a module's path to the role that
the documentation gives to it; they are for the evaluation alone, which scrambles every name before
it hands the graph to the analysis.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

Inputs = dict[str, Any]
Build = Callable[[], tuple[nn.Module, Inputs]]

KINDS = ("llm", "vision", "multimodal", "recsys", "audio", "generic")
SOURCES = ("transformers", "plain", "torch", "pypi")


@dataclass(frozen=True)
class Entry:
    """A labelled model.

    `family` is its lineage: models of one lineage are on one side of the split. A key of `regions`
    is a module's path, in which `*` stands for one part and is kept: `layers.*.mlp` labels every
    layer's MLP as a region of its own. The key with most parts wins. `path!op` labels the calls of
    an operator that the module at exactly this path makes itself. Calls without a label are not
    scored: the documentation does not say whose they are. A role may be followed by a tag,
    `attention:cross`, which tells neighbouring regions of one role apart.
    """

    name: str
    source: str
    family: str
    kind: str
    documented: str
    """Where the labels come from."""
    regions: Mapping[str, str]
    build: Build
    phase: str
    """What a call of it does: `prefill` a prompt, `decode` a token, or `forward`."""


ENTRIES: dict[str, Entry] = {}


def model(
    source: str,
    family: str,
    kind: str,
    documented: str,
    regions: Mapping[str, str] | None = None,
    phase: str = "",
) -> Callable[[Build], Build]:
    """Register a function that builds a module and its inputs, under the function's name."""
    assert source in SOURCES
    assert kind in KINDS

    def register(build: Build) -> Build:
        add(build.__name__, source, family, kind, documented, regions or {}, build, phase)
        return build

    return register


def add(
    name: str,
    source: str,
    family: str,
    kind: str,
    documented: str,
    regions: Mapping[str, str],
    build: Build,
    phase: str = "",
) -> None:
    """Register a model; its weights are drawn from a fixed seed.

    A language model without a cache takes a whole prompt, so its phase is `prefill`.
    """
    assert name not in ENTRIES, name

    def seeded() -> tuple[nn.Module, Inputs]:
        torch.manual_seed(0)
        module, inputs = build()
        return module.eval(), inputs

    phase = phase or ("prefill" if kind == "llm" else "forward")
    ENTRIES[name] = Entry(name, source, family, kind, documented, regions, seeded, phase)


def blocks(at: str, **roles: str) -> dict[str, str]:
    """Labels below every layer of the list `at`: role → its modules, separated by spaces.

    `__` in a role stands for a colon.
    """
    return {
        f"{at}.*.{part}": role.replace("__", ":")
        for role, parts in roles.items()
        for part in parts.split()
    }


HELD_OUT = frozenset(
    (Path(__file__).parent / "held_out.txt").read_text(encoding="utf-8").splitlines()
)
"""The families that no pattern was made or calibrated on."""


def held_out(entries: Mapping[str, Entry]) -> frozenset[str]:
    """Names of the models whose family is held out."""
    return frozenset(e.name for e in entries.values() if e.family in HELD_OUT)


def drawn(entries: Mapping[str, Entry]) -> frozenset[str]:
    """How the held-out families were drawn: of each kind, every other one in order of its hash.

    So nobody chose them, and every kind has some on both sides. The file keeps the draw, because
    it depends on which families there are.
    """
    families: dict[str, set[str]] = {}
    for entry in entries.values():
        families.setdefault(entry.kind, set()).add(entry.family)
    seen: set[str] = set()
    out: set[str] = set()
    for kind in KINDS:
        # A family with models of several kinds goes where the first kind puts it.
        ordered = sorted(families.get(kind, set()) - seen, key=_rank)
        out.update(ordered[1::2])
        seen.update(ordered)
    return frozenset(out)


def _rank(family: str) -> str:
    return hashlib.sha256(family.encode()).hexdigest()


def ids(*shape: int, below: int = 90) -> Inputs:
    """Token or item ids, int64[b, *shape]."""
    return {"dtype": "int64", "shape": ["b", *shape], "low": 0, "high": below}


def mask(length: int) -> Inputs:
    """An attention mask of ones, int64[b, length]."""
    return {"dtype": "int64", "shape": ["b", length], "low": 1, "high": 2}


def floats(*shape: int) -> Inputs:
    """float32[b, *shape]."""
    return {"dtype": "float32", "shape": ["b", *shape]}
