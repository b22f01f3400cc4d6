"""A module's entry points, captured one after the other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from genie.capture.capture import Captured, capture
from genie.capture.entry import Entry, EntryPoints, standing, with_states
from genie.capture.exporter import export
from genie.capture.locate import Locator
from genie.capture.merge import merged
from genie.graph.entries import Entries
from genie_schemas.errors import GenieError
from genie_schemas.spec import Spec

__all__ = ["capture_entries"]


def capture_entries(
    model: nn.Module, spec: Spec, path: Path, shown: str, file: str
) -> tuple[Entries, dict[str, torch.Tensor]]:
    """The graphs of the module's entry points, and their tensors by key.

    That is the forward under the spec's inputs, or where the spec gives none, what a language model
    with a cache has. `shown` and `file` are the names of model and spec, for errors. Raises
    GenieError GEN0127, GEN0202, GEN0206, GEN0220 to GEN0230, GEN0240 to GEN0243.
    """
    if not spec.infers_inputs:
        return _together(EntryPoints((Entry.plain(spec),)), model, path, shown)
    from genie.capture.llm import language_model

    try:
        return _together(language_model(model, spec, path, shown, file), model, path, shown)
    except GenieError as error:
        if error.code != "GEN0221":
            raise
        # The spec has no dimensions to narrow.
        remedy = "compile the forward, with inputs of fixed sizes in the spec"
        raise dataclasses.replace(error, remedy=remedy) from error


def _together(
    points: EntryPoints, model: nn.Module, path: Path, shown: str
) -> tuple[Entries, dict[str, torch.Tensor]]:
    captured = {entry.name: _capture(model, entry, path, shown) for entry in points.entries}
    graphs, tensors = merged(captured)
    return Entries(graphs, points.loops), tensors


def _capture(model: nn.Module, entry: Entry, path: Path, shown: str) -> Captured:
    names = {given: state.name for given, state in entry.states.items()}
    with standing(model, entry):
        empty = {given for given, state in entry.states.items() if state.update == "append"}
        program = export(model, entry.spec, path, shown, empty)
        locate = Locator(model, entry.spec, path, shown)
        made = capture(model, program, entry.spec, shown, locate, names)
    return Captured(with_states(made.graph, entry), made.tensors)
