"""A language model's entry points: prefill and decode over shared states, and the loop generate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from genie.capture.capture import capture
from genie.capture.entry import Entry, EntryPoints, StateInput, standing
from genie.capture.exporter import export, forward_place
from genie.capture.llm.limits import Layer, Limits, limits
from genie.capture.llm.models import CachedModel, adapt
from genie.capture.llm.store import Buffers, Decode, Prefill
from genie.capture.llm.trial import check_cache, last_logits, learn_layers
from genie.graph.ir import Graph
from genie.semantics import classify
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import Loop, Sample
from genie_schemas.spec import Dim, Dtype, Input, Llm, Spec

__all__ = ["language_model"]

PREFILL, DECODE, GENERATE = "prefill", "decode", "generate"
_LENGTH = "cache_length"
_TOKEN = "token"  # noqa: S105 - an input's name


def language_model(model: nn.Module, spec: Spec, path: Path, shown: str, file: str) -> EntryPoints:
    """The entry points of a causal language model whose spec gives no inputs.

    `file` is the spec's name, for errors. Raises GenieError GEN0127 and GEN0240 to GEN0243, and
    what `export` and `capture` raise for the plain forward.
    """
    place = forward_place(model, shown)
    found = adapt(model) if spec.workload in ("auto", "llm") else None
    if found is None:
        raise _no_inputs(model, spec, place, file)
    _check_kind(_probe(model, found, spec, path, shown), spec, file)
    layers = learn_layers(found, place)
    bounds = limits(spec.llm or Llm(), found.limit, layers, file)
    check_cache(found, layers, bounds.cache, place)
    return EntryPoints(
        (_prefill(found, spec, layers, bounds), _decode(found, spec, layers, bounds)),
        {GENERATE: _generate(found, bounds)},
    )


def _check_kind(graph: Graph, spec: Spec, file: str) -> None:
    """GEN0240 unless the plain forward is a language model's, by its structure or by the spec."""
    workload = classify(graph)
    if "llm" in (workload.kind, spec.workload):
        return
    lacking = workload.lacks.get("llm") or ("its structure is another workload's",)
    raise GenieError(
        "GEN0240",
        "the spec gives no inputs, and the model is not known as a causal language model",
        Place(file=file, path="inputs"),
        f"it looks like {workload.kind}; not found: {'; '.join(lacking)}",
        "write the inputs of its forward under inputs; or workload: llm, if it is one",
    )


def _no_inputs(model: nn.Module, spec: Spec, place: Place, file: str) -> GenieError:
    if spec.workload == "llm" or spec.llm is not None:
        return GenieError(
            "GEN0241",
            "the model's forward takes no cache",
            place,
            "it has neither past_key_values and use_cache, as transformers' models have, nor "
            "cache=None",
            "follow the protocol in docs/llm.md, or compile the forward, with inputs in the spec",
        )
    names = [
        n
        for n, p in inspect.signature(model.forward).parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return GenieError(
        "GEN0240",
        "the spec gives no inputs",
        Place(file=file, path="inputs"),
        f"forward takes: {', '.join(names) or 'nothing'}"
        + ("; it takes no cache, as a language model's would" if names else ""),
        "write inputs: {} for a forward that takes none"
        if not names
        else f"write inputs: {{{names[0]}: {{dtype: float32, shape: […]}}}}, and so on",
    )


def _probe(model: nn.Module, found: CachedModel, spec: Spec, path: Path, shown: str) -> Graph:
    """The plain forward's graph, from which the model is known for what it is."""
    tokens = Input(dtype="int64", shape=("batch", "tokens"))
    dims = {"batch": Dim(max=8), "tokens": Dim(max=64, example=3)}
    given = spec.model_copy(update={"inputs": {"input_ids": tokens}, "dims": dims})

    def forward(input_ids: Tensor) -> Tensor:
        return found.plain(input_ids)

    with standing(model, Entry("forward", given, forward)):
        program = export(model, given, path, shown)
        return capture(model, program, given, shown, lambda node: None).graph


def _prefill(found: CachedModel, spec: Spec, layers: Sequence[Layer], bounds: Limits) -> Entry:
    def forward(input_ids: Tensor, lengths: Tensor, buffers: Buffers) -> dict[str, Tensor]:
        store = Prefill(input_ids, lengths, buffers)
        logits = last_logits(found.cached(input_ids, store), store)
        return {"logits": logits, _LENGTH: lengths.clone()}

    inputs = {
        "input_ids": Input(dtype="int64", shape=("batch", "prompt")),
        "lengths": Input(dtype="int64", shape=("batch",), low=1, high=3),
    }
    dims = {"batch": bounds.batch, "prompt": bounds.prompt}
    return _entry(PREFILL, spec, inputs, dims, layers, bounds, forward)


def _decode(found: CachedModel, spec: Spec, layers: Sequence[Layer], bounds: Limits) -> Entry:
    def forward(token: Tensor, cache_length: Tensor, buffers: Buffers) -> dict[str, Tensor]:
        store = Decode(cache_length, buffers)
        logits = last_logits(found.cached(token[:, None], store), store)
        return {"logits": logits, _LENGTH: cache_length + 1}

    whole = Input(dtype="int64", shape=("batch",))
    inputs = {"token": whole, _LENGTH: whole}
    return _entry(DECODE, spec, inputs, {"batch": bounds.batch}, layers, bounds, forward)


def _entry(
    name: str,
    spec: Spec,
    inputs: dict[str, Input],
    most: Mapping[str, int],
    layers: Sequence[Layer],
    bounds: Limits,
    forward: Callable[..., dict[str, Tensor]],
) -> Entry:
    """The entry point with an input for each state; `forward` takes the cache's as one list."""
    inputs = dict(inputs)
    states = {_LENGTH: StateInput("cache.length", "replace", _LENGTH)}
    for i, layer in enumerate(layers):
        for part, width in (("k", layer.key), ("v", layer.value)):
            given = f"cache_{i}_{part}"
            shape = ("batch", layer.heads, bounds.cache, width)
            dtype = cast(Dtype, str(layer.dtype).removeprefix("torch."))
            inputs[given] = Input(dtype=dtype, shape=shape)
            states[given] = StateInput(f"cache.{i}.{part}", "append")
    caches = [given for given in inputs if given in states and given != _LENGTH]

    def flat(**given: Any) -> dict[str, Tensor]:
        buffers = [
            (given.pop(k), given.pop(v)) for k, v in zip(caches[::2], caches[1::2], strict=True)
        ]
        return forward(**given, buffers=buffers)

    parameters = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in inputs]
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    # Traced with a range of more than one size: export would fix a dimension of one.
    dims = {n: Dim(max=max(2, size)) for n, size in most.items()}
    ranges = {n: (1, size) for n, size in most.items()}
    entry = spec.model_copy(update={"inputs": inputs, "dims": dims})
    return Entry(name, entry, flat, states, ranges)


def _generate(found: CachedModel, bounds: Limits) -> Loop:
    special = found.special
    sample = Sample(
        logits="logits",
        token=_TOKEN,
        lengths="lengths",
        capacity=bounds.cache,
        eos=list(special.eos),
        pad=special.pad,
    )
    return Loop(entry=PREFILL, body=DECODE, carry=[_TOKEN], until="sampled", sample=sample)
