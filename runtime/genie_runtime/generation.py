"""The parameters of a generation loop: what may be asked for, checked wherever they arrive."""

from __future__ import annotations

import math

from genie_runtime.ports import Generation
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import MAX_SAFE_INT

__all__ = ["MAX_FORCED", "MAX_ROWS", "check_fits", "check_generation", "refusal"]

MAX_ROWS = 1 << 16
"""Sequences that one loop generates for: each token of all rows is one message."""

MAX_FORCED = 1 << 20
"""Forced tokens of all rows together."""


def check_generation(generation: Generation) -> None:
    """Check the ranges that need no plan.

    Raises GenieError GEN0480 (bad usage) that names the parameter: `max_new_tokens` from 1,
    `temperature` finite and from 0, `top_k` from 0, `top_p` above 0 and up to 1, `seed` from 0 to
    2^53 - 1, `forced` at most MAX_FORCED tokens of MAX_ROWS rows, each -1 or a token.
    """
    g = generation
    _whole("max_new_tokens", g.max_new_tokens, 1)
    _whole("top_k", g.top_k, 0)
    _whole("seed", g.seed, 0)
    if not (math.isfinite(g.temperature) and g.temperature >= 0):
        raise _range("temperature", g.temperature, "a number from 0 on (0 takes the likeliest)")
    if not 0 < g.top_p <= 1:
        raise _range("top_p", g.top_p, "above 0 and at most 1 (1 leaves every token)")
    if len(g.forced) > MAX_ROWS or sum(map(len, g.forced)) > MAX_FORCED:
        raise _range("forced", f"{len(g.forced)} rows", f"at most {MAX_FORCED} tokens")
    if any(not -1 <= token <= MAX_SAFE_INT for row in g.forced for token in row):
        raise _range("forced", "a number", "a token, or -1 after a row's end")


def refusal(generation: Generation | None) -> GenieError | None:
    """What `check_generation` says, as a value; None when nothing is wrong."""
    try:
        if generation is not None:
            check_generation(generation)
    except GenieError as error:
        return error
    return None


def check_fits(longest: int, max_new_tokens: int, capacity: int) -> None:
    """Raise GenieError GEN0479 unless the longest prompt and the new tokens fit the cache."""
    if longest + max_new_tokens > capacity:
        raise GenieError(
            "GEN0479",
            f"the prompt and the new tokens do not fit the cache of {capacity} tokens",
            Place(path="max_new_tokens"),
            f"the longest prompt has {longest} tokens, and {max_new_tokens} more were asked for",
            f"ask for at most {max(0, capacity - longest)} new tokens, shorten the prompt, or "
            "raise llm.max_cache_len in the spec and compile again",
        )


def _whole(name: str, value: int, least: int) -> None:
    if not least <= value <= MAX_SAFE_INT:
        raise _range(name, value, f"a whole number from {least} to {MAX_SAFE_INT}")


def _range(name: str, value: object, allowed: str) -> GenieError:
    return GenieError(
        "GEN0480",
        f"{name} = {value} is out of range",
        Place(path=name),
        f"it may be {allowed}",
        "give a value in that range",
    )
