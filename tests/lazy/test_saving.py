"""Checkpoints: files of the device are files of a CPU, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import genie.lazy  # noqa: F401 - the device comes with it


def trained() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    net = nn.Sequential(nn.Linear(300, 3), nn.BatchNorm1d(3)).to("genie")
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    x = torch.randn(4, 300).to("genie")
    net(x).pow(2).sum().backward()
    optimiser.step()
    return net, optimiser, x


@pytest.mark.parametrize("where", ["cpu", "genie", None])
def test_what_was_saved_is_loaded(tmp_path: Path, where: str | None) -> None:
    net, optimiser, x = trained()
    rows = x[1:, ::2]
    saved = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "rows": rows}
    torch.save(saved, tmp_path / "c.pt")
    found: Any = torch.load(tmp_path / "c.pt", map_location=where, weights_only=True)
    assert found["rows"].device.type == (where or "genie")
    assert found["rows"].stride() == rows.stride()
    assert torch.equal(found["rows"].cpu(), rows.cpu())
    other = nn.Sequential(nn.Linear(300, 3), nn.BatchNorm1d(3)).to("genie")
    other.load_state_dict(found["net"])
    again = torch.optim.Adam(other.parameters(), 1e-2)
    again.load_state_dict(found["optimiser"])
    for model, steps in ((net, optimiser), (other, again)):
        steps.zero_grad()
        model(x).pow(2).sum().backward()
        steps.step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.cpu(), b.cpu())


def test_tensors_that_share_memory_still_share_it(tmp_path: Path) -> None:
    whole = torch.ones(40, 40).to("genie")
    torch.save([whole, whole.t(), whole[1]], tmp_path / "c.pt")
    one, turned, row = torch.load(tmp_path / "c.pt", weights_only=True)
    one[1].fill_(5)
    assert turned[0, 1].item() == row[0].item() == 5


def test_a_file_of_a_cpu_is_loaded_onto_the_device(tmp_path: Path) -> None:
    torch.save(torch.arange(1000.0), tmp_path / "c.pt")
    found = torch.load(tmp_path / "c.pt", map_location="genie", weights_only=True)
    assert found.device.type == "genie"
    assert torch.equal(found.cpu(), torch.arange(1000.0))
