"""Reproducible weights: the same bits on every machine, without a download.

`torch.manual_seed` does not promise that: `randn`, `normal_` and the default initialisers give
other bits on another CPU capability. Here every value is a pure function of
(seed, parameter name, element index), computed with integer arithmetic and scaled by a power of
two, so no rounding depends on the machine, on the thread count or on the order of filling.

    model = fill_(BertModel(config)).eval()

The generator is SplitMix64 used as a counter: element `i` of the tensor with key `s` is
`mix(s + (i + 1) * 0x9E3779B97F4A7C15 mod 2**64)`, `mix` being the finaliser of Steele, Lea and
Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), in Vigna's constants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_", "uniform"]

_GAMMA = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_MASK = (1 << 64) - 1
_CHUNK = 1 << 15  # two uint64 work arrays of this length stay in a core's L2 cache

_SMALL = 4  # biases, tables and tokens lie in ±2**-4
_GAIN = 3  # gains and running means vary by ±2**-3
_VARIANCE = 2  # running variances lie in 1 ± 2**-2


class _Module(Protocol):
    """What `fill_` needs of a `torch.nn.Module`; this file must not import torch."""

    def named_modules(self) -> Iterable[tuple[str, Any]]: ...


M = TypeVar("M", bound=_Module)


def uniform(name: str, count: int, *, exponent: int = 0, seed: int = 0) -> NDArray[np.float32]:
    """Return `count` float32 values, uniform in [-2**-exponent, 2**-exponent).

    Every value is a multiple of 2**-(23 + exponent), hence exact. The first n values for a name do
    not depend on `count`.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    out = np.empty(count, np.float32)
    steps = np.arange(1, _CHUNK + 1, dtype=np.uint64) * np.uint64(_GAMMA)
    state, scratch = np.empty_like(steps), np.empty_like(steps)
    scale = np.float32(2.0 ** -(23 + exponent))
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        z, t = state[:size], scratch[:size]
        np.add(steps[:size], np.uint64((key + start * _GAMMA) & _MASK), out=z)
        for shift, factor in _MIX:
            np.right_shift(z, np.uint64(shift), out=t)
            np.bitwise_xor(z, t, out=z)
            np.multiply(z, np.uint64(factor), out=z)
        np.right_shift(z, np.uint64(31), out=t)
        np.bitwise_xor(z, t, out=z)
        np.right_shift(z, np.uint64(40), out=z)  # the upper 24 bits
        signed = z.astype(np.int32)
        signed -= 1 << 23
        np.multiply(signed, scale, out=out[start : start + size], casting="same_kind")
    return out


def fill_(module: M, seed: int = 0) -> M:
    """Fill every parameter and running statistic of `module` in place, and return it.

    The role of a tensor decides its range, so that activations neither vanish nor explode:

    - weights of linear and convolution layers: ±2**-k with 4**-k near 3 / fan-in, which is unit
      gain for a uniform distribution (LeCun's initialisation, rounded to a power of two);
    - embeddings, biases, class tokens and position tables: ±2**-4;
    - gains (one-dimensional `weight`, scalars): 1 ± 2**-3, not exactly 1, so that two norms never
      hold equal constants;
    - running means ±2**-3, running variances 1 ± 2**-2.

    A tied parameter is filled once, under the first name it has. Other buffers (masks, position
    ids, tables that the model computed) are left as they are. Only float16, float32 and float64
    tensors on the CPU are supported: TypeError names the first other one.
    """
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        for name, tensor in owner.named_parameters(recurse=False):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            base, exponent = _range(name, tuple(tensor.shape), hasattr(owner, "num_embeddings"))
            _assign(tensor, f"{prefix}.{name}" if prefix else name, base, exponent, seed)
        for name, tensor in owner.named_buffers(recurse=False):
            if name in ("running_mean", "running_var"):
                base, exponent = (0, _GAIN) if name == "running_mean" else (1, _VARIANCE)
                _assign(tensor, f"{prefix}.{name}" if prefix else name, base, exponent, seed)
    return module


def _range(name: str, shape: tuple[int, ...], embedding: bool) -> tuple[int, int]:
    """The centre and the exponent of a parameter's range."""
    if not shape or (len(shape) == 1 and name == "weight"):
        return 1, _GAIN
    # A leading dimension of 1 is a token or a position table that broadcasts over the batch.
    if embedding or len(shape) == 1 or (len(shape) >= 3 and shape[0] == 1):
        return 0, _SMALL
    fan_in = 1
    for size in shape[1:]:
        fan_in *= size
    exponent = 0
    while 4**exponent * 6 < fan_in:  # the power of two nearest to sqrt(3 / fan_in)
        exponent += 1
    return 0, exponent


def _assign(tensor: Any, name: str, base: int, exponent: int, seed: int) -> None:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in ("float16", "float32", "float64") or tensor.device.type != "cpu":
        raise TypeError(f"cannot fill {name}: {dtype} on {tensor.device} (float, on the CPU only)")
    values = uniform(name, tensor.numel(), exponent=exponent, seed=seed)
    if base:
        values += np.float32(base)  # one correctly rounded addition: the same everywhere
    tensor.detach().numpy()[...] = values.reshape(tuple(tensor.shape))
