"""Outputs whose sizes data decides: `x[x > 0]` has as many elements as are positive.

A plan's types say the most that there can be, and memory is planned for it. In a plan that requires
`outputs.ragged`, the output `y` that comes with an output `y.sizes` is such a one: its value is
filled up to its type, and `y.sizes`, an `i64[rank]`, holds its true sizes. Clients cut `y` to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

FEATURE: Final = "outputs.ragged"
"""What a plan with such outputs lists in `requires`."""

SUFFIX: Final = ".sizes"
"""The ending of the name of the output that holds another's true sizes."""


def pairs(outputs: Iterable[str]) -> dict[str, str]:
    """Output that is cut → the output that holds its sizes, for the names of all outputs."""
    names = set(outputs)
    return {
        name.removesuffix(SUFFIX): name
        for name in sorted(names)
        if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) in names
    }
