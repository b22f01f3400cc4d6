"""The operator allow-list: every overload that a plan may name, with what checking it needs.

The table is generated from torch by `python -m genie.capture.optable` and committed, so that
verifying a plan needs no torch. An overload that is not in it is refused everywhere.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class OpArg:
    """One parameter. `writes`: the call mutates it; `aliases`: a result may be a view of it."""

    name: str
    type: str
    keyword_only: bool
    optional: bool
    writes: bool
    aliases: bool


@dataclass(frozen=True)
class OpInfo:
    """One overload. `schema` is the first 16 hex digits of SHA-256 over its schema text."""

    name: str
    schema: str
    args: tuple[OpArg, ...]
    returns: tuple[str, ...]
    seeded: bool

    @property
    def returns_list(self) -> bool:
        """Whether the call returns one list of tensors."""
        return self.returns == ("Tensor[]",)

    def mutated(self, positional: dict[str, Any]) -> tuple[str, ...]:
        """Names of the parameters that a call with these argument values writes to.

        The schema's annotations, joined with `HIDDEN_MUTATIONS`.
        """
        names = [a.name for a in self.args if a.writes]
        hidden = HIDDEN_MUTATIONS.get(self.name)
        if hidden is not None and positional.get(hidden[0]) is not False:
            names += [n for n in hidden[1] if positional.get(n) is not None]
        return tuple(names)

    def aliased(self) -> tuple[str, ...]:
        """Names of the parameters whose memory a result may be, for some sizes and values.

        The schema's annotations, joined with `HIDDEN_ALIASES`.
        """
        hidden = HIDDEN_ALIASES.get(self.name.split(".")[1], ())
        return tuple(a.name for a in self.args if a.aliases or a.name in hidden)

    def draws(self, bound: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments, by parameter name, draws random numbers."""
        if not self.seeded or bound.get("train") is False or bound.get("training") is False:
            return False
        known = {a.name for a in self.args}
        for rate in ("dropout_p", "p", "dropout"):
            if rate in known and bound.get(rate, 0.0) == 0.0:
                return rate == "p" and "bernoulli" in self.name
        return True


HIDDEN_MUTATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "aten.batch_norm.default": ("training", ("running_mean", "running_var")),
    "aten.instance_norm.default": ("use_input_stats", ("running_mean", "running_var")),
    "aten.native_batch_norm.default": ("training", ("running_mean", "running_var")),
    "aten._batch_norm_impl_index.default": ("training", ("running_mean", "running_var")),
    "aten.rrelu_with_noise.default": ("training", ("noise",)),
}
"""Overloads that write to arguments although their schema does not say so: the flag that turns it
on, and what is written. Seen in torch 2.13 by comparing arguments before and after the call."""


HIDDEN_ALIASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("atleast_1d", "atleast_2d", "atleast_3d"), ("self", "tensors")),
    **dict.fromkeys(
        ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"), ("input",)
    ),
    **dict.fromkeys(("unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"), ("self",)),
    **dict.fromkeys(
        (
            *("_cast_Byte", "_cast_Char", "_cast_Double", "_cast_Float"),
            *("_cast_Half", "_cast_Int", "_cast_Long", "_cast_Short"),
        ),
        ("self",),
    ),
    "_unsafe_view": ("self",),
    "broadcast_tensors": ("tensors",),
    "cartesian_prod": ("tensors",),
    "conj_physical": ("self",),
    "einsum": ("tensors",),
    "flatten_dense_tensors": ("tensors",),
    "histogramdd": ("bins",),
    "lift": ("self",),
    "meshgrid": ("tensors",),
    "sum_to_size": ("self",),
    "type_as": ("self",),
}
"""Operators that may return an argument itself, or a view of it, although their schema does not say
so: `x.type_as(y)` is x when the dtypes agree. Seen in torch 2.13 by comparing storages."""


def _arg(text: str) -> OpArg:
    optional = text.endswith("=")
    name, kind = text.rstrip("=").split(":")
    keyword = name.startswith("*")
    name = name.lstrip("*")
    mark = name[0] if name[0] in "!~" else ""
    return OpArg(name.lstrip("!~"), kind, keyword, optional, mark == "!", mark != "")


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = resources.files("genie_schemas").joinpath("json/optable.json").read_text("ascii")
    table: dict[str, Any] = json.loads(text)
    return table


def captured_torch() -> str:
    """The torch version that the table was generated from."""
    return str(_table()["torch"])


@lru_cache(maxsize=4096)
def lookup(name: str) -> OpInfo | None:
    """The overload `name` ("aten.conv2d.default"), or None when it is not allowed."""
    entry = _table()["ops"].get(name)
    if entry is None:
        return None
    return OpInfo(
        name,
        entry["schema"],
        tuple(_arg(a) for a in entry["args"]),
        tuple(entry["returns"]),
        bool(entry.get("seeded")),
    )


def names() -> tuple[str, ...]:
    """Every allowed overload, sorted."""
    return tuple(_table()["ops"])


def similar(name: str) -> list[str]:
    """Up to three allowed overloads that look like `name`, for error messages."""
    return difflib.get_close_matches(name, names(), 3)
