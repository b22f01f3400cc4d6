"""The counter-based generator, against a scalar reference written with Python's integers."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genie.testing.weights import fill_, uniform

MASK = (1 << 64) - 1


def reference(name: str, index: int, exponent: int, seed: int) -> float:
    """Element `index` by SplitMix64's definition: `index + 1` steps of the state, then the mix."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    z ^= z >> 31
    return ((z >> 40) - (1 << 23)) / float(1 << (23 + exponent))


@given(
    name=st.text(max_size=30),
    index=st.one_of(st.integers(0, 20), st.integers(32_700, 32_800), st.integers(98_000, 99_000)),
    exponent=st.integers(0, 12),
    seed=st.integers(0, 2**40),
)
def test_every_element_is_the_reference_value(
    name: str, index: int, exponent: int, seed: int
) -> None:
    values = uniform(name, index + 1, exponent=exponent, seed=seed)
    assert values.dtype == np.float32
    assert values.shape == (index + 1,)
    assert float(values[index]) == reference(name, index, exponent, seed)


def test_bits_are_pinned() -> None:
    values = uniform("layer.weight", 100_000, exponent=4)
    digest = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
    assert digest == "f8f428cf375d18f1ff49eba20031bdeadcb4bca43c3d7d3a8dc3b8b173d1f12d"
    assert -(2.0**-4) <= values.min() < -0.06
    assert 0.06 < values.max() < 2.0**-4
    assert abs(float(values.astype(np.float64).mean())) < 1e-3


def test_shorter_draws_are_prefixes_of_longer_ones() -> None:
    long = uniform("a", 70_000)
    assert np.array_equal(uniform("a", 33_000), long[:33_000])
    assert not np.array_equal(uniform("b", 33_000), long[:33_000])
    assert not np.array_equal(uniform("a", 33_000, seed=1), long[:33_000])
    assert uniform("a", 0).shape == (0,)


class Zoo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 192)
        self.linear = nn.Linear(192, 100)
        self.conv = nn.Conv2d(8, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.token = nn.Parameter(torch.zeros(1, 1, 4096))
        self.scale = nn.Parameter(torch.zeros(()))
        self.decoder = nn.Linear(192, 50)
        self.decoder.weight = self.table.weight
        self.register_buffer("mask", torch.tril(torch.ones(3, 3)))


def test_ranges_follow_the_role_of_a_tensor() -> None:
    zoo = fill_(Zoo())

    def spread(tensor: torch.Tensor) -> tuple[float, float]:
        return float(tensor.min()), float(tensor.max())

    def within(tensor: torch.Tensor, low: float, high: float) -> bool:
        # Inside, and near both ends: not constant, not one-sided.
        least, most = spread(tensor.detach())
        room = (high - low) / 4
        return low <= least < low + room and high - room < most <= high

    assert within(zoo.table.weight, -(2**-4), 2**-4)
    assert within(zoo.linear.weight, -(2**-3), 2**-3)  # fan-in 192: sqrt(3 / 192) = 2**-3
    assert within(zoo.linear.bias, -(2**-4), 2**-4)
    assert within(zoo.conv.weight, -(2**-2), 2**-2)  # fan-in 72: sqrt(3 / 72) = 0.204
    assert within(zoo.norm.weight, 1 - 2**-3, 1 + 2**-3)
    assert within(zoo.norm.running_mean, -(2**-3), 2**-3)  # type: ignore[arg-type]
    assert within(zoo.norm.running_var, 1 - 2**-2, 1 + 2**-2)  # type: ignore[arg-type]
    assert within(zoo.token, -(2**-4), 2**-4)
    scale = zoo.scale.item()
    assert scale == pytest.approx(1, abs=2**-3)
    assert scale != 1
    assert torch.equal(zoo.mask, torch.tril(torch.ones(3, 3)))  # type: ignore[arg-type]
    assert zoo.norm.num_batches_tracked == 0


def test_a_tied_weight_keeps_its_first_name_and_stays_tied() -> None:
    zoo = fill_(Zoo())
    assert zoo.decoder.weight is zoo.table.weight
    expected = torch.from_numpy(uniform("table.weight", 50 * 192, exponent=4).reshape(50, 192))
    assert torch.equal(zoo.decoder.weight, expected)


def test_values_do_not_depend_on_layout_siblings_or_history() -> None:
    plain, laid_out = fill_(Zoo()), Zoo().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    laid_out = fill_(fill_(laid_out, seed=3))
    assert not laid_out.conv.weight.is_contiguous()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, laid_out.state_dict()[name]), name
    alone = fill_(nn.ModuleDict({"conv": nn.Conv2d(8, 16, 3)}))
    assert torch.equal(alone["conv"].weight, plain.conv.weight)  # type: ignore[arg-type]


def test_half_and_double_precision_are_filled() -> None:
    for dtype in (torch.float16, torch.float64):
        weight = fill_(nn.Linear(8, 4, dtype=dtype)).weight
        assert torch.equal(weight, fill_(nn.Linear(8, 4)).weight.to(dtype))


def test_an_unsupported_tensor_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.bfloat16))
    with pytest.raises(TypeError, match=r"cannot fill 1\.weight: bfloat16 on cpu"):
        fill_(model)
    with pytest.raises(TypeError, match=r"cannot fill weight: float32 on meta"):
        fill_(nn.Linear(2, 2, device="meta"))


def test_the_module_does_not_import_torch() -> None:
    script = "import sys, genie.testing.weights; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == 0
