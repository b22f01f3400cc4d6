"""An analysis as text, as JSON values, and as a drawing in Graphviz's DOT language."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genie.semantics.annotate import Analysis
from genie.semantics.blueprint import Blueprint, blueprint

__all__ = ["analysis_dot", "analysis_json", "analysis_text", "blueprint_json", "dot"]


def analysis_json(found: Analysis) -> dict[str, Any]:
    """Every call and value with its notes, and the blueprint; numbers as JSON has them."""
    return {
        "workload": {
            "kind": found.workload.kind,
            "confidence": found.workload.confidence,
            "pattern": found.workload.pattern,
            "evidence": list(found.workload.evidence),
        },
        "phase": found.phase,
        "inputs": dict(found.inputs),
        "calls": [
            {
                "op": node.op,
                "writes": node.writes(),
                "phase": note.phase,
                "component": note.component,
                "region": note.region,
                "modality": note.modality,
                "criticality": note.criticality,
                "rate": note.rate,
            }
            for node, note in zip(found.graph.nodes, found.calls, strict=True)
        ],
        "values": {
            name: {"residency": note.residency, "readers": note.readers}
            for name, note in found.values.items()
        },
        **blueprint_json(blueprint(found)),
    }


def blueprint_json(plan: Blueprint) -> dict[str, Any]:
    """Components, flows and residency. Shares are texts: a plan's JSON has no floats."""
    return {
        "components": [
            {
                "name": c.name,
                "phase": c.phase,
                "modality": c.modality,
                "ops": c.calls,
                "regions": c.regions,
                "weight_bytes": c.weights,
                "work": f"{c.work:.3f}",
                "criticality": f"{c.criticality:.3f}",
            }
            for c in plan.components
        ],
        "flows": [
            {
                "from": f.source,
                "to": f.target,
                "values": f.values,
                "bytes": f.bytes,
                "readers": f.readers,
            }
            for f in plan.flows
        ],
        "residency": {
            kind: {"values": count, "bytes": size} for kind, (count, size) in plan.residency.items()
        },
    }


def analysis_text(found: Analysis) -> str:
    """One line a call, grouped by region; newline at the end."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Analysis) -> Iterator[str]:
    w = found.workload
    yield f"workload {w.kind}, confidence {w.confidence:.3f}, phase {found.phase}"
    for clue in w.evidence:
        yield f"  because {clue}"
    for item in found.graph.inputs:
        note = found.values[item.name]
        shown = found.inputs.get(item.name, "weight")
        yield f"  input {item.name}: {item.value.type}  {shown}, {note.residency}"
    region = None
    for node, call in zip(found.graph.nodes, found.calls, strict=True):
        if (call.component, call.region) != region:
            region = (call.component, call.region)
            yield f"  # {call.component}: {call.region} ({call.phase})"
        made = ", ".join(node.writes()) or "()"
        carried = call.modality or "-"
        yield (
            f"  {made} = {node.op}  {carried}, critical {call.criticality:.2f}, rate {call.rate:g}"
        )


def analysis_dot(found: Analysis) -> str:
    """The blueprint of one graph as a DOT digraph."""
    return dot({"forward": blueprint_json(blueprint(found))})


def dot(entries: dict[str, Any]) -> str:
    """Blueprints by entry point, as `blueprint_json` gives them, as one DOT digraph."""
    lines = ["digraph semantics {", "  rankdir=LR;", "  node [shape=box];"]
    for i, (entry, plan) in enumerate(entries.items()):
        lines += [f"  subgraph cluster_{i} {{", f"    label={_quote(entry)};"]
        names = dict.fromkeys(str(c.get("name")) for c in plan["components"])
        ends = (str(f.get(end)) for f in plan["flows"] for end in ("from", "to"))
        names |= dict.fromkeys(ends)
        rows = {str(c.get("name")): c for c in plan["components"]}
        for name in names:
            row = rows.get(name)
            said = [name]
            if row is not None:
                said += [str(row.get("modality") or ""), f"{row.get('ops')} ops"]
            shape = "" if row is not None else ", shape=ellipse"
            label = _quote("\\n".join(part for part in said if part))
            lines.append(f"    {_quote(f'{entry}/{name}')} [label={label}{shape}];")
        for f in plan["flows"]:
            source, target = (_quote(f"{entry}/{f.get(end)}") for end in ("from", "to"))
            lines.append(f"    {source} -> {target} [label={_quote(str(f.get('bytes')) + ' B')}];")
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _quote(text: str) -> str:
    r"""A DOT string; line breaks are kept as `\n`, and nothing else can end it."""
    kept = text.replace("\\n", "\n").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + kept.replace("\n", "\\n") + '"'
