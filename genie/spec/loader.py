"""From a spec file to a checked `Spec`: read, render, validate; every error at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genie.spec.document import Node, Report, Scalar, ScalarNode, locate, read_source, to_plain

if TYPE_CHECKING:
    from pydantic import ValidationError

    from genie_schemas.spec import Spec

__all__ = ["LoadedSpec", "load_spec"]


@dataclass(frozen=True)
class LoadedSpec:
    """A spec that passed every check.

    `path` is the file as the user named it. `digest` is sha256 (hex) over the spec's canonical
    content: the same for YAML and TOML, for 2GiB and 2048MiB, with templates or without, and for
    defaults written out or left out. `weights` is the weights file relative to the same place as
    `path`; whether it exists and fits is checked when the model is loaded.
    """

    path: Path
    spec: Spec
    digest: str
    weights: Path | None


def _digest(spec: Spec) -> str:
    content = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    text = json.dumps(
        {"genie": spec.genie, **content},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path, report: Report) -> Node:
    if path.suffix.lower() == ".toml":
        from genie.spec.toml_reader import read_toml

        return read_toml(report)
    from genie.spec.yaml_reader import read_yaml

    return read_yaml(report)


def _as_text(
    error: ValidationError,
    root: Node,
    rendered: dict[ScalarNode, Scalar],
    texts: Mapping[ScalarNode, str],
) -> bool:
    """Take rendered scalars as text where text is wanted: a name may render to digits."""
    changed = False
    for detail in error.errors(include_url=False, include_context=False):
        if detail["type"] == "string_type":
            _, node = locate(root, tuple(detail["loc"]))
            if isinstance(node, ScalarNode) and node in texts and rendered[node] != texts[node]:
                rendered[node] = texts[node]
                changed = True
    return changed


def load_spec(path: Path, settings: Mapping[str, str]) -> LoadedSpec:
    """Read, render and check the spec at `path` (TOML when it is named .toml, else YAML 1.2).

    Args:
        path: The file; error messages name it as given here.
        settings: Variables for templates (`--set`), name to text.

    Raises:
        GenieError: the file cannot be read, or `settings` do not fit it.
        GenieErrors: everything wrong in the file, each with its place.
    """
    report = Report(read_source(path))
    root = _read(path, report)

    from genie.spec.template import render

    rendering = render(root, settings, report)
    rendered = dict(rendering.values)
    report.reading_done()

    from pydantic import ValidationError

    from genie.spec.diagnose import report_inconsistencies, report_invalid
    from genie_schemas.spec import Spec, inconsistencies

    spec: Spec | None = None
    try:
        spec = Spec.model_validate(to_plain(root, rendered))
    except ValidationError as error:
        failure = error
        if _as_text(error, root, rendered, rendering.texts):
            try:
                spec = Spec.model_validate(to_plain(root, rendered))
            except ValidationError as second:
                failure = second
        if spec is None:
            report_invalid(failure, root, report)
            report_inconsistencies(inconsistencies(to_plain(root, rendered)), root, report)
    report.raise_found()
    if rendering.unused is not None:
        raise rendering.unused
    assert spec is not None  # noqa: S101 - a failed validation has just been raised

    weights = spec.model.weights
    return LoadedSpec(path, spec, _digest(spec), path.parent / weights if weights else None)
