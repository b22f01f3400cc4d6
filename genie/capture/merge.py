"""Entry points of one model together: every tensor once, under one name in all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from genie.capture.capture import Captured
from genie.graph.ir import Constant, Graph
from genie_schemas.names import Namer

__all__ = ["merged"]


def merged(captured: Mapping[str, Captured]) -> tuple[dict[str, Graph], dict[str, torch.Tensor]]:
    """The graphs with names and keys that agree, and the tensors by key.

    Parameters and buffers have the same name everywhere. Lifted tensors are counted in each graph
    anew: one that is another than the first of its name gets a name of its own.
    """
    namer = Namer()
    for each in captured.values():
        for value in each.graph.values():
            namer.reserve(value.name)
    known: dict[str, tuple[str, str]] = {}
    keys: dict[tuple[str, str], str] = {}
    graphs: dict[str, Graph] = {}
    tensors: dict[str, torch.Tensor] = {}
    for entry, each in captured.items():
        names: dict[str, str] = {}
        held: list[Constant] = []
        for constant in each.graph.constants:
            content = (constant.value.type, constant.digest)
            name = constant.name
            if known.setdefault(name, content) != content:
                name = names[constant.name] = namer(constant.name)
                known[name] = content
            key = keys.setdefault(content, name)
            tensors.setdefault(key, each.tensors[constant.key])
            value = dataclasses.replace(constant.value, name=name)
            held.append(dataclasses.replace(constant, value=value, key=key))
        graphs[entry] = _renamed(each.graph, names, tuple(held))
    return graphs, tensors


def _renamed(graph: Graph, names: Mapping[str, str], held: tuple[Constant, ...]) -> Graph:
    outputs = tuple(
        dataclasses.replace(o, value=names.get(o.value or "", o.value)) for o in graph.outputs
    )
    nodes = tuple(node.renamed(names) for node in graph.nodes) if names else graph.nodes
    return dataclasses.replace(graph, constants=held, nodes=nodes, outputs=outputs)
