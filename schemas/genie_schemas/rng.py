"""Random numbers in a plan: the names that belong to them.

A plan that draws requires `rng`. Each op that draws has, beside its own keywords, `rng`: a value of
type `i64[]`, the seed of the run. The entry point takes it as the input `rng.seed`.
"""

from __future__ import annotations

from typing import Final

FEATURE: Final = "rng"
"""What a plan that draws lists in `requires`."""

KEYWORD: Final = "rng"
"""The keyword of an op that names its seed; no operator of torch has a parameter of this name."""

SEED: Final = "rng.seed"
"""The input that carries the seed. A spec cannot name an input so: its names have no dots."""

SEED_TYPE: Final = "i64[]"
"""The seed's type: any 64-bit integer."""
