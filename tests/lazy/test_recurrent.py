"""Recurrent networks, whose cells torch fuses on devices like this one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import genie.lazy  # noqa: F401 - the device comes with it

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lstm": partial(nn.LSTM, 4, 6, 2, batch_first=True, bidirectional=True),
    "lstm-without-bias": partial(nn.LSTM, 4, 6, batch_first=True, bias=False),
    "gru": partial(nn.GRU, 4, 6, 2, batch_first=True),
    "rnn": partial(nn.RNN, 4, 6, batch_first=True),
}


def run(device: str, make: Callable[[], nn.Module]) -> list[Tensor]:
    """Padded sequences of three lengths forward and backward, then in inference mode."""
    torch.manual_seed(0)
    net = make().to(device)
    x = torch.randn(3, 5, 4).to(device).requires_grad_()
    lengths = torch.tensor([3, 5, 2])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    out, found = nn.utils.rnn.pad_packed_sequence(net(packed)[0], batch_first=True)
    assert torch.equal(found, lengths)
    out.pow(2).sum().backward()
    with torch.inference_mode():
        again = net(x)[0]
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    return [t.cpu() for t in (out.detach(), x.grad, again, *grads) if t is not None]


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_a_cpu_computes(name: str) -> None:
    expected = run("cpu", NETWORKS[name])
    for there, here in zip(run("genie", NETWORKS[name]), expected, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [[2, 3], [3], [3, 0]])
def test_lengths_that_do_not_fit_are_refused_as_on_a_cpu(lengths: list[int]) -> None:
    said = []
    for device in ("cpu", "genie"):
        with pytest.raises(RuntimeError) as caught:
            nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 4).to(device), torch.tensor(lengths))
        said.append(str(caught.value).splitlines()[0])
    assert said[0] == said[1]
