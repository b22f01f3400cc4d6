"""What a plan says of its model's semantics, in `advisory.semantics`; no executor reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from genie.semantics.annotate import Analysis
from genie.semantics.blueprint import blueprint
from genie.semantics.classify import GENERIC, nearly
from genie.semantics.export import blueprint_json
from genie.semantics.regions import Region

__all__ = ["advice", "meaning_of"]


def advice(
    analyses: Mapping[str, Analysis],
    regions: Sequence[Region],
    placed: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Kind and confidence, the modules' regions, and the blueprint of each entry point.

    `placed` has, by entry point, the module region of each call: each module is given the
    component that most of its calls belong to.
    """
    first = next(iter(analyses.values()))
    workload = first.workload
    meaning = meaning_of(analyses, placed)
    plans = {name: blueprint_json(blueprint(found)) for name, found in analyses.items()}
    data: dict[str, Any] = {
        "kind": workload.kind,
        "confidence": f"{workload.confidence:g}",
        "by": workload.pattern or "no pattern",
        "evidence": list(workload.evidence),
        "regions": [
            {
                "module": r.path,
                "class": r.kind,
                "ops": r.ops,
                "component": meaning.get(r.path, ""),
            }
            for r in regions
        ],
        "entrypoints": {
            name: {
                "phase": found.phase,
                "inputs": dict(found.inputs),
                "residency": plans[name]["residency"],
            }
            for name, found in analyses.items()
        },
        # One on a line in the file, so that a changed component is a changed line.
        **{
            part: [
                {"entrypoint": name, **row} for name, plan in plans.items() for row in plan[part]
            ]
            for part in ("components", "flows")
        },
    }
    near = nearly(first.decision.others)
    if workload.kind == GENERIC and near is not None:
        name, match = near
        data["nearest"] = {
            "pattern": name,
            "confidence": f"{match.confidence:g}",
            "missing": list(match.missing),
        }
    return data


def meaning_of(
    analyses: Mapping[str, Analysis], placed: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Module region → the component that most of its calls belong to; ties: the first."""
    votes: dict[str, Counter[str]] = {}
    for name, found in analyses.items():
        for module, note in zip(placed[name], found.calls, strict=True):
            votes.setdefault(module, Counter())[note.component] += 1
    return {module: max(count, key=lambda c: count[c]) for module, count in votes.items()}
