"""Operators that draw random numbers: refused, or fed with the seed of each run.

A drawing call gets one keyword beside torch's own, `rng`, whose value is the plan's input
`rng.seed`. So the seed is ordinary data: it is sent to every device that draws, belongs to what a
run id is bound to, and a run that is tried again draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genie_schemas.args import Arg, Ref
from genie_schemas.optable import OpInfo
from genie_schemas.rng import KEYWORD, SEED, SEED_TYPE
from genie_schemas.spec import Spec

__all__ = ["SEED", "SEED_TYPE", "Draws"]


class Draws:
    """What a capture knows of random numbers: whether they are allowed, and whether any is drawn.

    With `random: seeded` in the spec, `keyword` gives drawing calls their seed.
    """

    def __init__(self, spec: Spec) -> None:
        self.allowed = spec.random == "seeded"
        self.any = False

    def keyword(self, info: OpInfo, bound: Mapping[str, Any]) -> tuple[tuple[str, Arg], ...] | None:
        """The further keywords of a call; None when it draws and must not."""
        if not info.draws(bound):
            return ()
        if not self.allowed:
            return None
        self.any = True
        return ((KEYWORD, Ref(SEED)),)
