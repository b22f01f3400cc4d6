"""Repeated layers become one program, and a layer more is a few lines more."""

from __future__ import annotations

import difflib
import re

import pytest
import torch
from torch import Tensor, nn

from genie.plan.emit import bytes_of
from genie_schemas.plan import ComputeStep
from tests.capture.compiling import Compiled, check, compile_module, spec_of


class Block(nn.Module):
    """A residual layer of five calls."""

    def __init__(self, width: int = 6, bias: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width, bias=bias)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))
        return out


class Net(nn.Module):
    """A stem, `depth` layers and a head."""

    def __init__(self, depth: int, *, own_residual: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(6, 6)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(6, 3)
        self.own_residual = own_residual

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x) if self.own_residual else block(x)
        out: Tensor = self.head(x)
        return out


INPUT = {"x": ("float32", ["b", 6])}


def net(depth: int, **more: bool) -> Compiled:
    return compile_module(Net(depth, **more).eval(), spec_of(INPUT))


def calls(compiled: Compiled) -> dict[str, str]:
    """Compute step → its program's key."""
    return {s.id: s.program for s in compiled.plan.steps if isinstance(s, ComputeStep)}


def test_repeated_layers_share_one_program() -> None:
    compiled = net(5)
    found = calls(compiled)
    blocks = {found[f"blocks.{i}/compute@d0"] for i in range(5)}
    assert len(blocks) == 1
    assert len(compiled.plan.programs) == 3
    program = compiled.plan.programs[blocks.pop()]
    assert [v.name for v in program.inputs][:3] == ["x", "norm.weight", "norm.bias"]


def test_layers_that_differ_do_not_share() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(), Block(bias=False), Block(), Block(bias=False))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.blocks(x)
            return out

    compiled = check(Two(), INPUT)
    found = list(calls(compiled).values())
    assert found[0] == found[2]
    assert found[1] == found[3]
    assert found[0] != found[1]


@pytest.mark.parametrize("own_residual", [False, True])
def test_a_layer_more_adds_its_own_lines(own_residual: bool) -> None:
    """Between depths 3 and 4 nothing that stays is renamed, moved or renumbered."""
    old, new = net(3, own_residual=own_residual), net(4, own_residual=own_residual)

    def lines(compiled: Compiled) -> list[str]:
        # Digests, needs, the weights file's name and the totals of components and residency follow
        # from the content of everything.
        text = re.sub(r"net\.[0-9a-f]{16}\.safetensors", "net.safetensors", compiled.text)
        text = re.sub(r'"needs": \d+', '"needs": 0', text)
        totals = ("sha256:", '"criticality":', '"residency":', '"component":')
        return [line for line in text.splitlines() if not any(t in line for t in totals)]

    changes = [
        line
        for line in difflib.ndiff(lines(old), lines(new))
        if line[0] in "+-" and line[1:].strip()
    ]
    gone = [line for line in changes if line[0] == "-"]
    # What reads the last layer's result now reads the new layer's.
    assert all("blocks.2" in line or "add.3" in line or '"head' in line for line in gone), gone
    assert len(gone) <= 4, gone
    added = [line for line in changes if line[0] == "+"]
    assert any("blocks.3/compute@d0" in line for line in added)
    assert all(
        any(part in line for part in ("blocks.3", "blocks.2", "head", "add.4", "add.3"))
        for line in added
    ), added


def test_nested_lists_are_opened_where_layers_repeat() -> None:
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Block() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList(Stage() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for stage in self.stages:
                x = stage(x)
            return x

    compiled = check(Deep(), INPUT)
    ids = list(calls(compiled))
    assert ids == [f"stages.{i}.layers.{j}/compute@d0" for i in range(2) for j in range(2)]
    assert len(compiled.plan.programs) == 1


def test_small_layers_stay_in_one_step() -> None:
    torch.manual_seed(0)
    compiled = check(
        nn.Sequential(*[nn.Linear(6, 6) for _ in range(8)]), {"input": ("float32", ["b", 6])}
    )
    assert len(calls(compiled)) == 1


def test_a_layer_used_twice_runs_one_program_on_one_set_of_constants() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.blocks
            out: Tensor = first(second(first(x)))
            return out

    compiled = check(Shared(), INPUT)
    found = calls(compiled)
    assert len(found) == 3
    assert len(set(found.values())) == 1
    distinct = {p.detach().numpy().tobytes() for p in compiled.model.parameters()}
    assert bytes_of(compiled.plan) == sum(map(len, distinct))


def test_equal_layers_on_two_devices_share_a_program() -> None:
    stages = [("d0", ["stem", "blocks.0"]), ("d1", ["blocks.1", "head"])]
    compiled = compile_module(Net(2).eval(), spec_of(INPUT, stages=stages))
    found = calls(compiled)
    assert found["blocks.0/compute@d0"] == found["blocks.1/compute@d1"]
    assert "d0" not in str(compiled.plan.programs)
