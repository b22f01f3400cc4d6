"""Drawing the next token of each row from its scores.

Temperature, then top-k, then top-p, as the literature and transformers define them: scores are
divided by the temperature; top-k leaves the k highest (and what ties with the lowest of them);
top-p (nucleus sampling, Holtzman et al. 2020) leaves the likeliest tokens whose probabilities sum
up to p. Exponentials are f32, sums f64.

The uniform number of token `index` of row `row` is the first of Philox-4x64-10 (Salmon et al. 2011)
with the key (seed, 0) and the counter (1, 0, row, index): nothing depends on what else is drawn, so
batching, devices and resumption change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genie_runtime.ports import Generation
from genie_schemas.errors import GenieError

__all__ = ["Sampler", "Uniforms", "pick"]

_Row = np.ndarray[Any, np.dtype[np.float32]]
_FIRST = 256
"""Candidates that top-p looks at first; nearly always the nucleus is among them."""


class Uniforms:
    """Numbers in [0, 1) by counter. Not thread-safe: one a run."""

    def __init__(self, seed: int) -> None:
        self._philox = np.random.Philox(0)
        self._state: Any = self._philox.state
        self._state["state"]["key"][:] = (seed, 0)

    def at(self, row: int, index: int) -> float:
        """The number of token `index` of row `row`, a multiple of 2^-53."""
        # Setting the state is how one generator serves every counter; numpy counts one up before
        # it draws, hence the 1 of the documentation.
        self._state["state"]["counter"][:] = (0, 0, row, index)
        self._state["buffer_pos"] = 4
        self._philox.state = self._state
        return (int(self._philox.random_raw()) >> 11) * 2.0**-53


class Sampler:
    """Draws as a `Generation` says."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._uniforms = Uniforms(generation.seed)

    def draw(self, logits: torch.Tensor, index: int, ended: Sequence[bool]) -> list[int]:
        """Token `index` of every row of logits f32[rows, vocabulary]; -1 for rows that ended.

        Greedy takes the first of the highest scores. Raises GenieError GEN0481 when scores that
        are drawn from are not numbers.
        """
        if self._generation.temperature == 0:
            best = logits.argmax(-1).tolist()
            return [-1 if over else token for token, over in zip(best, ended, strict=True)]
        rows = logits.detach().cpu().numpy()
        return [
            -1 if over else pick(rows[row], self._generation, self._uniforms.at(row, index))
            for row, over in enumerate(ended)
        ]


def pick(scores: _Row, generation: Generation, uniform: float) -> int:
    """The token at `uniform` of the distribution that scores f32[vocabulary] have.

    Raises GenieError GEN0481 when they have none: one is NaN, or the highest is infinite.
    """
    highest = scores.max()
    if not np.isfinite(highest):  # NaN is the maximum of what holds it
        raise GenieError(
            "GEN0481",
            "the scores of the next token are not numbers",
            cause=f"the highest of {len(scores)} is {highest}",
            remedy="compare the model's own output for this prompt",
        )
    # Before dividing: a small temperature would make the scores themselves infinite.
    with np.errstate(over="ignore", under="ignore"):
        scaled = (scores - highest) / np.float32(generation.temperature)
        weights = np.exp(scaled)
    if 0 < generation.top_k < len(scaled):
        weights[scaled < np.partition(scaled, -generation.top_k)[-generation.top_k]] = 0
    if generation.top_p < 1:
        weights[~_nucleus(weights, generation.top_p)] = 0
    tokens = np.flatnonzero(weights)
    ends = np.cumsum(weights[tokens], dtype=np.float64)
    # Rounding may take the product up to the very end, which belongs to the last token.
    at = np.searchsorted(ends, uniform * ends[-1], side="right")
    return int(tokens[min(int(at), len(tokens) - 1)])


def _nucleus(weights: _Row, top_p: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which tokens top-p leaves: each whose more likely ones together have less than `top_p`.

    Of equal ones the first is the more likely.
    """
    wanted = top_p * weights.sum(dtype=np.float64)
    count = _FIRST
    while True:
        if count < len(weights):
            tokens = np.flatnonzero(weights >= np.partition(weights, -count)[-count])
        else:
            tokens = np.arange(len(weights))
        order = tokens[np.argsort(-weights[tokens], kind="stable")]
        ends = np.cumsum(weights[order], dtype=np.float64)
        if count >= len(weights) or ends[-1] >= wanted:
            break
        count *= 16
    kept = np.zeros(len(weights), np.bool_)
    # `ends` before a token is what the more likely ones have together.
    kept[order[: 1 + int(np.searchsorted(ends, wanted, side="left"))]] = True
    return kept
