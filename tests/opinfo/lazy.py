"""The path through the lazy device: the same calls on tensors that are on `genie`."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.opinfo.samples import SEED, Case


class Lazy:
    """Runs each case's module, nothing changed, on tensors of the lazy device."""

    name = "lazy device"

    @property
    def counts(self) -> tuple[int, int]:
        """What the device has counted."""
        import genie.lazy

        found = genie.lazy.stats()
        return found["host_fallbacks"], found["graphs_run"]

    def __enter__(self) -> Self:
        import genie.lazy

        torch.set_num_threads(genie.lazy.threads())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def run(self, case: Case) -> list[Any]:
        """The results, copied back; arguments that name a device name this one."""
        import genie.lazy

        before = case.module.leaves
        case.module.leaves = [_there(leaf) for leaf in before]
        try:
            given = {name: tensor.to("genie") for name, tensor in case.inputs.items()}
            torch.manual_seed(SEED)
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = case.module(**given)
            # Small tensors that are only looked at would be evaluated by the host.
            genie.lazy.synchronize()
        finally:
            case.module.leaves = before
        leaves = [leaf for leaf in pytree.tree_leaves(found) if leaf is not None]
        return [leaf.cpu() if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _there(leaf: Any) -> Any:
    if isinstance(leaf, torch.device) or leaf == "cpu":
        return torch.device("genie")
    return leaf
