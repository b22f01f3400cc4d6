"""What a generation loop is asked: its parameters, and the lengths of its prompts."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from genie.client.tensors import Array, Tensor, as_tensor
from genie_runtime.generation import check_fits, check_generation
from genie_runtime.plans import called, sampling
from genie_runtime.ports import Generation
from genie_schemas.errors import GenieError, Place
from genie_schemas.messages import GenerationRequest
from genie_schemas.plan import ExecutionPlan, Sample
from genie_schemas.types import TensorType, parse_type

__all__ = [
    "check_loop",
    "generation",
    "generation_request",
    "parse_parameters",
    "sample_of",
    "unlimited",
    "with_lengths",
]

PARAMETERS = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
DEFAULTS: dict[str, Any] = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
REAL = ("temperature", "top_p")
"""Those that are no whole numbers."""


def sample_of(plan: ExecutionPlan, entrypoint: str) -> Sample:
    """How the loop of a name samples; GEN0407 when the plan has no such loop."""
    loop = sampling(plan, entrypoint)
    if loop is not None and loop.sample is not None:
        return loop.sample
    called(plan, entrypoint)  # a name that nothing has is told with a suggestion
    loops = [name for name in plan.loops if sampling(plan, name)]
    raise GenieError(
        "GEN0407",
        f"the entry point {entrypoint!r} does not generate",
        remedy=f"what generates in this plan: {', '.join(sorted(loops)) or 'nothing'}",
    )


def with_lengths(
    plan: ExecutionPlan, entrypoint: str, inputs: Mapping[str, Array | Tensor]
) -> dict[str, Array | Tensor]:
    """The inputs of a loop, or of the entry point that it begins with, with their `lengths`.

    Where these were left out, every prompt is as long as the batch is wide. Others are checked:
    GEN0440 for one below 1 or beyond that width. What is wrong with other inputs is not told here.
    """
    found = dict(inputs)
    loop = sampling(plan, entrypoint) or next(
        (loop for loop in plan.loops.values() if loop.sample and loop.entry == entrypoint), None
    )
    if loop is None or loop.sample is None:
        return found
    name = loop.sample.lengths
    types = {item.name: parse_type(item.type) for item in called(plan, entrypoint).inputs}
    prompts = _prompts(types, name)
    if prompts not in found:
        return found
    shape = as_tensor(found[prompts]).shape
    if len(shape) < 2:
        return found
    if name not in found:
        found[name] = np.full(shape[0], shape[1], np.int64)
        return found
    lengths = as_tensor(found[name]).array
    if lengths.dtype.kind in "iu" and lengths.size:
        least, most = int(lengths.min()), int(lengths.max())
        if least < 1 or most > shape[1]:
            raise GenieError(
                "GEN0440",
                f"{name!r} holds {least if least < 1 else most}; the prompts are {shape[1]} wide",
                Place(path=name),
                remedy=f"give each prompt's number of tokens, 1 to {shape[1]}, or leave them out",
                context={"input": name},
            )
    return found


def _prompts(types: Mapping[str, TensorType], lengths: str) -> str:
    """The input whose second dimension the lengths count: the first one with their batch."""
    batch = types[lengths].shape[0].text
    for name, type_ in types.items():
        if name != lengths and len(type_.shape) >= 2 and type_.shape[0].text == batch:
            return name
    return ""


def generation(
    max_new_tokens: int, temperature: float, top_k: int, top_p: float, seed: int
) -> Generation:
    """How a loop samples, out of what a caller gave; NumPy's numbers are numbers, too.

    Raises GEN0480 for what is no number, or is out of range.
    """
    whole = {"max_new_tokens": max_new_tokens, "top_k": top_k, "seed": seed}
    given: dict[str, Any] = {**whole, "temperature": temperature, "top_p": top_p}
    found: dict[str, Any] = {}
    for name, value in given.items():
        try:
            found[name] = operator.index(value) if name in whole else float(value)
        except (TypeError, ValueError, OverflowError):
            raise no_number(name, value, whole=name in whole) from None
    made = Generation(**found)
    check_generation(made)
    return made


def no_number(name: str, value: object, *, whole: bool) -> GenieError:
    """GEN0480 for a parameter that is no number."""
    kind = "whole number" if whole else "number"
    return GenieError(
        "GEN0480",
        f"{name} = {str(value)[:80]!r} is no {kind}",
        Place(path=name),
        remedy=f"give a {kind}",
    )


def check_loop(sample: Sample, generation: Generation, lengths: Array) -> None:
    """GEN0479 when the tokens do not fit the cache."""
    longest = int(lengths.max()) if lengths.size else 0
    check_fits(longest, generation.max_new_tokens, sample.capacity)


def generation_request(generation: Generation | None) -> GenerationRequest | None:
    """As the daemon is told; floats exactly, as hexadecimal text."""
    if generation is None:
        return None
    return GenerationRequest(
        max_new_tokens=generation.max_new_tokens,
        temperature=float(generation.temperature).hex(),
        top_k=generation.top_k,
        top_p=float(generation.top_p).hex(),
        seed=str(generation.seed),
        forced=[list(row) for row in generation.forced],
    )


def parse_parameters(settings: Mapping[str, str]) -> dict[str, float | int]:
    """Parameters out of texts, as the command line gives them.

    Raises GEN0441 for one that there is not, GEN0480 for one that is no number, or when
    `max_new_tokens` is missing.
    """
    found: dict[str, float | int] = {}
    for name, text in settings.items():
        if name not in PARAMETERS:
            close = difflib.get_close_matches(name, PARAMETERS, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise GenieError(
                "GEN0441",
                f"there is no parameter {name[:80]!r}",
                remedy=f"{hint}--set takes {', '.join(PARAMETERS)}",
            )
        try:
            found[name] = float(text) if name in REAL else int(text)
        except ValueError:
            raise no_number(name, text, whole=name not in REAL) from None
    if "max_new_tokens" not in found:
        raise unlimited()
    return found


def unlimited() -> GenieError:
    """GEN0480: nobody said how many tokens are wanted."""
    return GenieError(
        "GEN0480",
        "max_new_tokens is not given",
        Place(path="max_new_tokens"),
        "a loop generates until every row has ended, and at most that many tokens",
        "give it: --set max_new_tokens=64, or session.generate(…, max_new_tokens=64)",
    )
