"""Operators that plans may not name, or that a CPU has for other dtypes: composed, not fetched."""

from __future__ import annotations

import pytest
import torch

import genie.lazy

ENDS = [[4, 4, 12, 16], [0, 8, 8, 16], [0, 0, 0, 16]]


@pytest.mark.parametrize("ends", ENDS, ids=str)
@pytest.mark.parametrize(
    ("left", "right"),
    [((16, 8), (4, 8, 12)), ((4, 12, 8), (8, 16)), ((12, 16), (16, 8))],
    ids=["rows", "columns", "summed"],
)
def test_products_of_groups_stay_on_the_device(
    left: tuple[int, ...], right: tuple[int, ...], ends: list[int]
) -> None:
    torch.manual_seed(0)
    given = torch.randn(left), torch.randn(right), torch.tensor(ends, dtype=torch.int32)
    expected = torch._grouped_mm(*given)
    made = torch._grouped_mm(*(t.to("genie") for t in given)).cpu()
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
    assert genie.lazy.stats()["host_fallbacks"] == 0


def test_few_rows_take_their_groups_matrices() -> None:
    torch.manual_seed(0)
    rows, matrices = torch.randn(3, 8), torch.randn(4, 8, 12)
    ends = torch.tensor([1, 1, 3, 3], dtype=torch.int32)
    made = torch._grouped_mm(rows.to("genie"), matrices.to("genie"), ends.to("genie"))
    expected = torch._grouped_mm(rows, matrices, ends)
    torch.testing.assert_close(made.cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32], ids=str)
def test_a_histogram_counts_integers_as_other_devices_do(dtype: torch.dtype) -> None:
    given = torch.tensor([0, 1, 1, 3, 3, 3, 5])
    made = torch.histc(given.to(dtype).to("genie"), bins=4, min=0, max=3).cpu()
    expected = torch.histc(given.float(), bins=4, min=0, max=3)
    assert made.dtype == dtype
    assert torch.equal(made.float(), expected)


def test_recurrent_networks_are_one_operator_without_gradients() -> None:
    for kind in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN):
        net = kind(4, 6, batch_first=True).to("genie")
        with torch.no_grad():
            made = net(torch.ones(2, 5, 4, device="genie"))[0]
        assert made.cpu().shape == (2, 5, 6)
        ops = [c["op"] for c in genie.lazy.semantics()["calls"]]
        assert any(op.endswith(".input") for op in ops)
        assert len(ops) < 10


def test_a_recurrent_network_under_autocast_is_composed() -> None:
    torch.manual_seed(0)
    net = torch.nn.LSTM(8, 6, batch_first=True)
    x = torch.randn(2, 5, 8)
    expected = net(x)[0].detach()
    net = net.to("genie")
    with torch.no_grad(), torch.autocast("genie", torch.bfloat16):
        made = net(x.to("genie").bfloat16())[0]
    torch.testing.assert_close(made.cpu().float(), expected, rtol=0.05, atol=0.05)
