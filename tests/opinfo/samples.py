"""PyTorch's own operator tests as modules: one forward a sample, and what eager makes of it.

A `Case` is one sample input of one OpInfo. Its tensors are the inputs of a module whose forward
calls the operator; every other argument is fixed. What the samples are, what eager gives for them
and how results are compared is the same for every path that the sweep tries.
"""

from __future__ import annotations

import inspect
import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Operator tests of features that are off by default elsewhere stay off here.
os.environ.setdefault("PYTORCH_TEST_WITH_SLOW", "0")

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tests.opinfo.comparing import inexact

SEED = 42
"""What torch's generator is set to before samples are made and before eager runs: what torch's own
wrappers of random operators set it to."""

SAMPLES = 3


def database() -> list[Any]:
    """Every OpInfo, in torch's order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    return list(op_db)


def name_of(info: Any) -> str:
    """An OpInfo's name with its variant: "sum.dim" for several entries of one operator."""
    return str(info.formatted_name)


def dtype_of(info: Any, wanted: torch.dtype) -> torch.dtype | None:
    """`wanted` if the operator supports it on CPU; for float32 else its first dtype, by name."""
    supported = info.supported_dtypes("cpu")
    if wanted in supported:
        return wanted
    if wanted == torch.float32 and supported:
        return min(supported, key=str)
    return None


class Call(nn.Module):
    """`op(*args, **kwargs)` with the tensors of its arguments as forward's parameters x0, x1, …"""

    def __init__(self, op: Any, arguments: Any) -> None:
        super().__init__()
        self.op = op
        leaves, self.structure = pytree.tree_flatten(arguments)
        self.leaves = leaves
        self.places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        names = [f"x{i}" for i in range(len(self.places))]
        parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
        signature = inspect.Signature(parameters)

        def forward(*args: Tensor, **kwargs: Tensor) -> Any:
            given = signature.bind(*args, **kwargs).arguments.values()
            filled = list(self.leaves)
            for place, tensor in zip(self.places, given, strict=True):
                filled[place] = tensor
            positional, keywords = pytree.tree_unflatten(filled, self.structure)
            return self.op(*positional, **keywords)

        forward.__signature__ = signature  # type: ignore[attr-defined]
        self.forward = forward


@dataclass(frozen=True)
class Case:
    """One sample of one operator: a module and its inputs, dense and row-major, by name."""

    op: str
    index: int
    module: Call
    inputs: dict[str, Tensor]

    @cached_property
    def expected(self) -> list[Any]:
        """Eager's results as leaves, on copies of the inputs; raises what the operator raises."""
        return self._eager()

    @cached_property
    def deterministic(self) -> bool:
        """Whether the bits of eager's results follow from the inputs and the seed.

        That is so when no operator that eager calls has torch's tag for those that promise no
        equal bits, and when eager, on fresh copies of the inputs (which lie in memory as the first
        ones did) and with the same seed, gives the same bits again.
        """
        with _Tags() as tags:
            self._eager()
        steady = torch.Tag.nondeterministic_bitwise not in tags.found
        return steady and inexact(self._eager(), self.expected) is None

    def _eager(self) -> list[Any]:
        given = {name: tensor.clone() for name, tensor in self.inputs.items()}
        torch.manual_seed(SEED)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.module(**given)
        leaves = [leaf for leaf in pytree.tree_leaves(found) if leaf is not None]
        return [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]


class _Tags(TorchDispatchMode):
    """Collects the tags of every operator that is called while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[torch.Tag] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.update(func.tags)
        return func(*args, **(kwargs or {}))


def cases(info: Any, dtype: torch.dtype, limit: int = SAMPLES) -> Iterator[Case]:
    """The first samples of an operator; raises what torch raises when it has none to give."""
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(
            itertools.islice(info.sample_inputs("cpu", dtype, requires_grad=False), limit)
        )
    for index, sample in enumerate(samples):
        module = Call(info.op, ((sample.input, *sample.args), dict(sample.kwargs)))
        tensors = [dense(module.leaves[place]) for place in module.places]
        for place in module.places:
            module.leaves[place] = None
        yield Case(name_of(info), index, module, {f"x{i}": t for i, t in enumerate(tensors)})


def dense(tensor: Tensor) -> Tensor:
    """A row-major copy with its bytes resolved: how inputs arrive at a plan."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.clone(memory_format=torch.contiguous_format)
