"""Loading the user's model and its weights, in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from genie.model.loader import load_model, load_weights
from genie_schemas.errors import GenieError, GenieErrors
from tests.capture.compiling import spec_of

VECTOR = {"x": ("float32", ["b", 6])}

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.layer = nn.Linear(6, width)

    def forward(self, x):
        return self.layer(x)

def build(width=6):
    return Net(width)

NUMBER = 3
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path / "model.py"


def load(path: Path, weights: Path | None = None, **model: Any) -> nn.Module:
    return load_model(path, path.name, spec_of(VECTOR, model=model), weights)


def refused(path: Path, weights: Path | None = None, **model: Any) -> GenieError:
    with pytest.raises(GenieError) as caught:
        load(path, weights, **model)
    assert caught.value.remedy
    return caught.value


def test_an_entry_is_called_with_the_specs_arguments(path: Path) -> None:
    assert load(path, args={"width": 3}).layer.weight.shape == (3, 6)  # type: ignore[union-attr]
    assert isinstance(load(path, entry="Net"), nn.Module)


def test_what_is_no_model_file(path: Path) -> None:
    assert refused(path.parent / "other.py").code == "GEN0200"
    assert refused(path.parent).code == "GEN0200"
    (path.parent / "model.txt").write_text(MODEL)
    assert refused(path.parent / "model.txt").code == "GEN0200"


def test_what_is_no_entry(path: Path) -> None:
    error = refused(path, entry="biuld")
    assert error.code == "GEN0201"
    assert "did you mean 'build'" in str(error)
    error = refused(path, entry="NUMBER")
    assert error.code == "GEN0201"
    assert "Net, build" in str(error)


def test_arguments_that_the_entry_does_not_take(path: Path) -> None:
    error = refused(path, args={"depth": 3})
    assert error.code == "GEN0204"
    assert "build(width=6)" in str(error)


def saved(folder: Path, **change: Tensor | None) -> Path:
    """A weights file for the model, changed like this."""
    state: dict[str, Tensor] = {"layer.weight": torch.ones(6, 6), "layer.bias": torch.ones(6)}
    for name, tensor in change.items():
        if tensor is None:
            del state[f"layer.{name}"]
        else:
            state[f"layer.{name}"] = tensor
    save_file(state, folder / "w.safetensors")
    return folder / "w.safetensors"


def test_weights_are_loaded(path: Path) -> None:
    model = load(path, saved(path.parent))
    assert all(torch.equal(p, torch.ones_like(p)) for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bias": None}, "has no 'layer.bias'"),
        ({"bias": torch.ones(4)}, "[4] in the weights file"),
        ({"bias": torch.ones(6).half()}, "float16"),
        ({"more": torch.ones(1)}, "which the model does not"),
        ({"bias": None, "bais": torch.ones(6)}, "did you mean 'layer.bais'"),
    ],
)
def test_weights_that_do_not_fit(path: Path, change: dict[str, Tensor | None], says: str) -> None:
    error = refused(path, saved(path.parent, **change))
    assert error.code == "GEN0212"
    assert says in str(error)


def test_every_difference_is_told_at_once(path: Path) -> None:
    error = refused(path, saved(path.parent, bias=torch.ones(4), weight=torch.ones(2, 2)))
    assert isinstance(error, GenieErrors)
    assert len(error.errors) == 2


def test_weights_that_are_no_weights(path: Path) -> None:
    weights = saved(path.parent)
    weights.write_bytes(b"\x80\x04pickle")
    assert refused(path, weights).code == "GEN0211"
    weights.unlink()
    assert refused(path, weights).code == "GEN0210"


class Tied(nn.Module):
    """Two names for one tensor, two slices of another, and extra state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        both = torch.zeros(2, 3)
        self.register_buffer("upper", both[0])
        self.register_buffer("lower", both[1])

    def get_extra_state(self) -> Any:
        return {"version": 3}

    def set_extra_state(self, state: Any) -> None:
        raise AssertionError("weights files hold none")


def test_one_name_of_tied_weights_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    both = {"upper": torch.ones(3), "lower": torch.ones(3)}
    save_file({"first.weight": torch.ones(3, 3), **both}, path)
    model = Tied()
    load_weights(model, path)
    assert torch.equal(model.second.weight, torch.ones(3, 3))


def test_slices_of_one_tensor_are_not_tied(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"first.weight": torch.ones(3, 3), "upper": torch.ones(3)}, path)
    with pytest.raises(GenieError) as caught:
        load_weights(Tied(), path)
    assert "has no 'lower'" in str(caught.value)


class Halved(nn.Linear):
    """Changes what it loads."""

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        state[f"{prefix}weight"] = state[f"{prefix}weight"] / 2
        super()._load_from_state_dict(state, prefix, *args)


class Shares(nn.Module):
    """Parameters that are the only ones in their memory, and others."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = nn.Linear(4, 4, bias=False)
        self.halved = Halved(4, 4, bias=False)
        self.tied = nn.Linear(4, 4, bias=False)
        self.other = nn.Linear(4, 4, bias=False)
        self.other.weight = self.tied.weight
        self.whole = nn.Parameter(torch.zeros(4, 4))
        self.part = self.whole.data[:2]


def test_only_parameters_that_nothing_else_shares_are_the_mapped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genie.model.loader.MAPPED_BYTES", 1)
    names = ("alone.weight", "halved.weight", "tied.weight", "whole")
    state = {name: torch.full((4, 4), float(i + 1)) for i, name in enumerate(names)}
    save_file(state, tmp_path / "w.safetensors")
    model = Shares()
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    load_weights(model, tmp_path / "w.safetensors", mapped=True)
    assert model.alone.weight.data_ptr() != before["alone.weight"]
    for name in ("halved.weight", "tied.weight", "whole"):
        assert model.get_parameter(name).data_ptr() == before[name]
    assert model.other.weight is model.tied.weight
    assert [float(p[0, 0].detach()) for p in model.parameters()] == [4.0, 1.0, 1.0, 3.0]
    assert float(model.part[0, 0]) == 4.0
    assert isinstance(model.alone.weight, nn.Parameter)
