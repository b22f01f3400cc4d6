"""What the device leaves to the host: random draws, results of unknown size, and compositions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from genie.lazy._counters import COUNTERS, user_line

__all__ = ["Host"]

_log = logging.getLogger("genie.lazy")
_NEW_CONTENT = (
    "bernoulli_.float uniform_.default normal_.default random_.default random_.from random_.to "
    "exponential_.default geometric_.default cauchy_.default log_normal_.default"
).split()
"""Draws that overwrite a tensor whatever it held."""


class Host:
    """Carries operators out where the program runs. One for a process."""

    def __init__(self, fetch: Callable[[list[torch.Tensor], str], list[torch.Tensor]]) -> None:
        self._fetch = fetch
        self.generator = torch.Generator("cpu")
        self.generator.manual_seed(torch.initial_seed())

    def __call__(self, name: str, why: str, args: list[Any]) -> tuple[Any, ...]:
        """The results of an operator ("aten.nonzero.default"), as tensors on the device.

        `args` follow the schema's parameters. Raises whatever the operator raises on a CPU.
        """
        op = overload(name)
        with torch.no_grad():
            if why == "random":
                return self._draw(op, name.removeprefix("aten."), args)
            composed = decomposition(op)
            if composed is not None:
                COUNTERS.add("compositions")
                positional, keywords = _split(op, args)
                return _returned(op, composed(*positional, **keywords))
            if COUNTERS.fell_back(name, why):
                _log.info("%s: %s runs on the host: %s", user_line(), name, why)
            COUNTERS.add("host_fallbacks")
            return self._run(op, args, f"{name} runs on the host")

    def _draw(self, op: Any, name: str, args: list[Any]) -> tuple[Any, ...]:
        """Draw on the host, with the device's generator, as a CPU would."""
        COUNTERS.add("random_draws")
        if name in _NEW_CONTENT:
            drawn = torch.empty(args[0].shape, dtype=args[0].dtype)
            self._call(op, [drawn, *args[1:]])
            args[0].copy_(drawn)
            return (args[0],)
        if name == "native_dropout.default":
            given, rate, _ = args
            kept = torch.empty(given.shape).bernoulli_(1 - rate, generator=self.generator)
            mask = kept.to(torch.bool).to(given.device)
            scale = 0.0 if rate == 1 else 1 / (1 - rate)
            return given * mask * scale, mask
        if name.partition(".")[0].endswith("_like"):
            like = torch.empty(args[0].shape, dtype=args[0].dtype)
            drawn = self._call(op, [like, *args[1:]])
            return (drawn.to("genie"),)
        return self._run(op, args, f"aten.{name} draws with parameters from the device")

    def _run(self, op: Any, args: list[Any], why: str) -> tuple[Any, ...]:
        there = [t for t in _tensors(args) if t.device.type == "genie"]
        found = iter(self._fetch(there, why) if there else [])
        here = {id(t): next(found) for t in there}
        result = self._call(op, _mapped(args, lambda t: here.get(id(t), t)))
        back = {id(here[id(t)]): t for t in there}
        for parameter, value in zip(op._schema.arguments, args, strict=True):
            alias = parameter.alias_info
            if alias is not None and alias.is_write:
                for tensor in _tensors([value]):
                    new = here.get(id(tensor))
                    if new is not None:
                        if new.shape != tensor.shape:
                            tensor.resize_(new.shape)
                        tensor.copy_(new)

        def returned(tensor: torch.Tensor) -> torch.Tensor:
            return back.get(id(tensor), tensor.to("genie"))

        return _returned(op, _mapped(result, returned))

    def _call(self, op: Any, args: list[Any]) -> Any:
        names = [a.name for a in op._schema.arguments]
        if "generator" in names and args[names.index("generator")] is None:
            at = names.index("generator")
            args = [*args[:at], self.generator, *args[at + 1 :]]
        positional, keywords = _split(op, args)
        if keywords.get("device") is not None:
            keywords["device"] = torch.device("cpu")
        if "generator" not in names and torch.Tag.nondeterministic_seeded in op.tags:
            # It draws from the default generator: lend it ours.
            before = torch.get_rng_state()
            torch.set_rng_state(self.generator.get_state())
            try:
                return op(*positional, **keywords)
            finally:
                self.generator.set_state(torch.get_rng_state())
                torch.set_rng_state(before)
        return op(*positional, **keywords)


@lru_cache(maxsize=4096)
def overload(name: str) -> Any:
    """The operator overload of "aten.add.Tensor"."""
    _, packet, chosen = name.split(".")
    return getattr(getattr(torch.ops.aten, packet), chosen)


@lru_cache(maxsize=4096)
def decomposition(op: Any) -> Callable[..., Any] | None:
    """How to do an operator that plans may not name with operators that they may.

    Derivatives whose kernels trust their indices and sizes are among them: a plan comes from
    anybody, so daemons do not offer those kernels.
    """
    from genie.lazy._composed import COMPOSED

    return COMPOSED.get(str(op))


def _split(op: Any, args: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    positional, keywords = [], {}
    for parameter, value in zip(op._schema.arguments, args, strict=True):
        if not parameter.kwarg_only:
            positional.append(value)
        elif value is not None:
            keywords[parameter.name] = value
    return positional, keywords


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]
    return value


def _returned(op: Any, result: Any) -> tuple[Any, ...]:
    count = len(op._schema.returns)
    if count == 0:
        return ()
    return (result,) if count == 1 else tuple(result)
