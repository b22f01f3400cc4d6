"""Recurrent cells, which torch fuses on devices like this one, made of operators that plans name.

Formulas: torch.nn.LSTMCell and torch.nn.GRUCell. They are composed above autograd, so that
gradients are those of the parts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["install"]

_LIBRARY: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
"""Its kernels are there as long as it is."""


def _lstm_cell(
    from_input: Tensor,
    from_hidden: Tensor,
    cell: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gates (N, 4·H) from both sides, cell (N, H); hidden and cell (N, H), and no workspace."""
    gates = _biased(from_hidden, hidden_bias) + _biased(from_input, input_bias)
    take, forget, new, give = gates.chunk(4, 1)
    after = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
    return give.sigmoid() * after.tanh(), after, gates.new_empty(0)


def _gru_cell(
    from_input: Tensor,
    from_hidden: Tensor,
    hidden: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gates (N, 3·H) from both sides, hidden (N, H); hidden (N, H), and no workspace."""
    in_reset, in_update, in_new = _biased(from_input, input_bias).chunk(3, 1)
    reset, update, new = _biased(from_hidden, hidden_bias).chunk(3, 1)
    fresh = (in_new + new * (reset + in_reset).sigmoid()).tanh()
    return (hidden - fresh) * (update + in_update).sigmoid() + fresh, hidden.new_empty(0)


def _biased(gates: Tensor, bias: Tensor | None) -> Tensor:
    return gates if bias is None else gates + bias


def _pack(given: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """Sequences (T, N, …) without their padding; `lengths` (N,) and batch sizes are the CPU's."""
    # A CPU's own operator says what is wrong with the lengths, and how many rows each step has.
    like = torch.empty((*given.shape[:2], 1))
    _, batches = torch.ops.aten._pack_padded_sequence(like, lengths, batch_first)
    steps = given.transpose(0, 1) if batch_first else given
    rows = [steps[step, :count] for step, count in enumerate(batches.tolist())]
    return torch.cat(rows), batches


def install() -> None:
    """Register them; once for a process."""
    kernels: dict[str, Any] = {
        "_thnn_fused_lstm_cell": _lstm_cell,
        "_thnn_fused_gru_cell": _gru_cell,
        "_pack_padded_sequence": _pack,
    }
    for name, kernel in kernels.items():
        for key in ("AutogradPrivateUse1", "PrivateUse1"):
            _LIBRARY.impl(name, kernel, key)
