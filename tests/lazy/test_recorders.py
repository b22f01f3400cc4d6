"""What torch does with tensors beside calling operators: the recorder keeps up with all of it."""

from __future__ import annotations

import copy
import random
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import genie.lazy
from genie.lazy._setup import recorder


def _change(tensors: list[Tensor], rng: random.Random) -> None:
    """Change how one tensor reads its bytes, or which bytes it reads."""
    tensor, other = tensors[rng.randrange(len(tensors))], tensors[rng.randrange(len(tensors))]
    kind = rng.randrange(8)
    axis = rng.randrange(max(tensor.dim(), 1))
    if kind == 0 and tensor.dim() == 2:
        tensor.t_()
    elif kind == 1 and tensor.dim():
        tensor.transpose_(axis, tensor.dim() - 1)
    elif kind == 2 and tensor.dim() < 4:
        tensor.unsqueeze_(axis)
    elif kind == 3:
        tensor.squeeze_()
    elif kind == 4:
        tensor.set_(other)
    elif kind == 5:
        tensor.data = other.data.clone()
    elif kind == 6:
        tensor.resize_(max(tensor.numel() - 1, 1))
    else:
        tensors.append(copy.deepcopy(tensor))


def _program(device: str, seed: int) -> list[Tensor]:
    rng = random.Random(seed)
    tensors = [torch.arange(24.0).view(4, 6).to(device), torch.arange(3000.0).to(device)]
    for step in range(16):
        kind = rng.randrange(4)
        if kind < 2:
            _change(tensors, rng)
        elif kind == 2:
            tensors[rng.randrange(len(tensors))].add_(step)
        else:
            tensors.append(tensors[rng.randrange(len(tensors))].reshape(-1)[1:])
        if rng.random() < 0.2:
            tensors[rng.randrange(len(tensors))].sum().item()
    return [tensor.cpu() for tensor in tensors]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_random_programs_that_change_layouts_and_storages_equal_the_cpu(seed: int) -> None:
    for found, wanted in zip(_program("genie", seed), _program("cpu", seed), strict=True):
        assert found.shape == wanted.shape
        assert torch.equal(found, wanted)


def test_the_shape_cache_tells_arguments_apart_that_compare_equal() -> None:
    whole = torch.ones(3, dtype=torch.int32, device="genie")
    assert [(whole * factor).dtype for factor in (1, 1.0, True)] == [
        torch.int32,
        torch.float32,
        torch.int32,
    ]
    values = torch.ones(3, device="genie")
    assert [torch.copysign(values, zero).sum().item() for zero in (0.0, -0.0)] == [3, -3]
    before = recorder().counts()
    for _ in range(5):
        values = values.clamp(0.25, 0.75)
    after = recorder().counts()
    assert after["shape_cache_misses"] - before["shape_cache_misses"] <= 1
    assert after["shape_cache_hits"] - before["shape_cache_hits"] >= 4


def test_numbers_and_tensors_of_one_element_promote_as_on_a_cpu() -> None:
    for device in ("cpu", "genie"):
        whole = torch.ones(2, dtype=torch.int32, device=device)
        assert (whole + 2.5).dtype == torch.float32
        assert (whole + torch.tensor(2.5, dtype=torch.float64)).dtype == torch.float64
        assert torch.where(whole > 0, whole, 2.0).dtype == torch.float32


def test_a_copy_of_a_model_is_its_own() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).to("genie")
    other = copy.deepcopy(model)
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.detach().zero_()
    assert other[1].running_var.tolist() == [1, 1, 1, 1]
    assert other[0].weight.cpu().abs().min().item() > 0


def test_a_model_changes_its_dtype_and_its_device_in_place() -> None:
    model = nn.Linear(3, 2)
    wanted = model.weight.detach().clone()
    model.to("genie")
    assert isinstance(model.weight, nn.Parameter)
    assert model.double().weight.dtype == torch.float64
    assert torch.equal(model.float().cpu().weight, wanted)


def test_two_tensors_that_are_swapped_take_their_bytes_along() -> None:
    one, two = torch.ones(3, device="genie"), torch.zeros(2, device="genie")
    torch.utils.swap_tensors(one, two)
    two.add_(1)
    assert (one.tolist(), two.tolist()) == ([0, 0], [2, 2, 2])


class Tied(nn.Module):
    """Two modules with one weight, as language models have."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.core = nn.LSTM(4, 4)
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.core(self.embed(ids))[0])
        return nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())


@pytest.mark.parametrize("held", [False, True])
def test_parameters_are_the_same_objects_on_the_device(held: bool) -> None:
    torch.manual_seed(5)
    model = Tied()
    other = copy.deepcopy(model)
    ids = torch.arange(8).view(4, 2)
    if held:  # by a graph, so that torch cannot put another tensor in its place
        graph = other.embed.weight * other.embed.weight.detach().requires_grad_()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.5) for m in (model, other)]
    weight = other.embed.weight
    weight.note = "kept"  # type: ignore[attr-defined]
    other.to("genie")
    assert other.head.weight is other.embed.weight
    assert (other.embed.weight is weight) == (not held)
    assert hasattr(other.embed.weight, "note") == (not held)
    if held:
        assert graph.device.type == "cpu"
        optimizers[1] = torch.optim.SGD(other.parameters(), lr=0.5)
    for _ in range(3):
        for net, optimizer in zip((model, other), optimizers, strict=True):
            optimizer.zero_grad()
            net(ids.to(net.embed.weight.device)).backward()
            optimizer.step()
    other.cpu()
    assert other.head.weight is other.embed.weight
    for a, b in zip(other.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_gradients_through_writes_to_views_checkpoints_and_twice() -> None:
    for device in ("cpu", "genie"):
        x = torch.ones(4, device=device, requires_grad=True)
        y = x * 1
        y[:2].mul_(3)
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [3, 3, 1, 1]
        z = torch.full((3,), 2.0, device=device, requires_grad=True)
        cubed = checkpoint(lambda v: v**3, z, use_reentrant=False)
        (first,) = torch.autograd.grad(cubed.sum(), z, create_graph=True)
        first.sum().backward()
        assert z.grad is not None
        assert z.grad.tolist() == [12, 12, 12]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers_and_their_gradients_equal_the_cpu(
    kind: type[nn.RNNBase], bias: bool
) -> None:
    torch.manual_seed(4)
    layer = kind(3, 4, num_layers=2, bidirectional=True, bias=bias)
    other = copy.deepcopy(layer).to("genie")
    x = torch.randn(5, 2, 3)
    wanted, found = layer(x)[0], other(x.to("genie"))[0]
    torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-5)
    wanted.square().sum().backward()
    found.square().sum().backward()
    for a, b in zip(other.parameters(), layer.parameters(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=0, atol=1e-5)
    assert genie.lazy.stats()["host_fallbacks"] == 0


def test_tensors_of_inference_mode_are_recorded_alike() -> None:
    with torch.inference_mode():
        x = torch.ones(3000, device="genie")
        for _ in range(10):
            x = x + 1
        x[:1000].add_(1)
        assert x.view(3, -1).sum(1).tolist() == [12000, 11000, 11000]


def test_threads_that_record_and_wait_at_once_see_their_own_values() -> None:
    wrong: list[float] = []
    shared = torch.ones(3000).to("genie")

    def work(gradients: bool) -> None:
        for _ in range(6):
            x = (shared * 1).requires_grad_(gradients)
            y = x
            for _ in range(30):
                y = y * 1 + shared
            y.detach()[:1000].add_(1)
            windows = [y[i : i + 10].sum() for i in range(10)]
            found = [y.sum().item() - 94_000, windows[0].item() - 320]
            if gradients:
                y.sum().backward()
                assert x.grad is not None
                found.append(x.grad.sum().item() - 3000)
            wrong.extend(value for value in found if value)
        wrong.append(0)

    threads = [
        threading.Thread(target=work, args=(place % 2 == 0,), daemon=True) for place in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
    assert wrong == [0] * 6


def test_a_storage_ends_with_its_last_tensor() -> None:
    x = torch.ones(5000).to("genie")
    storage = x.untyped_storage()
    row = x[100:].view(-1, 100)
    del x
    genie.lazy.synchronize()
    recorder().take_dropped()
    assert row.untyped_storage() is storage
    del storage
    assert recorder().take_dropped() == []
    del row
    assert len(recorder().take_dropped()) == 1


@pytest.mark.skipif(recorder().__name__ != "genie.lazy._python", reason="the extension moves it")
def test_every_window_sees_a_storage_grow() -> None:
    for size in (8, 5000):
        x = torch.zeros(size).to("genie")
        row = x[:4]
        x.add_(1)
        x.resize_(2 * size)
        x.fill_(2)
        assert row.tolist() == [2, 2, 2, 2]
        row.zero_()
        assert x.sum().item() == 2 * (2 * size - 4)
