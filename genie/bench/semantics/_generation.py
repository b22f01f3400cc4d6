"""Greedy generation in the four modes: one prompt, the same number of tokens, one token at a time.

The blind client keeps the cache and the sampled token remote: it sends a token's calls in one go,
lets the device take the argmax, and waits for nothing but the token's number, which it has to look
at as any loop does that may end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from genie.bench.semantics._blind import Blind, Held
from genie.bench.semantics._cases import Case, Constants, Model
from genie.bench.semantics._contest import REMOTE, Machines, Sessions
from genie.bench.semantics._naive import Naive
from genie.bench.semantics._walk import Walk, sizes
from genie.client.session import Session
from genie.testing.weights import uniform
from genie_schemas import canonical
from genie_schemas.closing import Closing
from genie_schemas.plan import Sample, State
from genie_schemas.types import DTYPES, parse_type

__all__ = ["Dialogue", "Spoken"]

_ARGMAX = '{"out":["o0"],"op":"aten.argmax.default","args":[{"v":"i0"},-1]}'
_WARM = 3


@dataclass(frozen=True)
class Spoken:
    """Generated tokens and what one took: (last - first) / (n - 1) in ms, here and at the daemon.

    Both are None for a single token, `daemon_ms` also where there is no daemon.
    """

    tokens: tuple[int, ...]
    token_ms: float | None
    daemon_ms: float | None = None


class Dialogue(Closing):
    """A language model's case, ready in every mode."""

    def __init__(self, case: Case, model: Model, machines: Machines, prompt: int) -> None:
        """Install the plan on the daemons and check that every mode gives the same tokens.

        `prompt` is the number of the prompt's tokens. Raises RuntimeError when one does not.
        """
        self.case = case
        self._plan = case.plan.installed.plan
        (self._loop,) = self._plan.loops.values()
        self._sample = cast(Sample, self._loop.sample)
        self._module = cast(Any, model.module)
        vocabulary = self._module.config.vocab_size
        drawn = (uniform("prompt", prompt, exponent=1) + 0.5) * vocabulary
        self._prompt = torch.from_numpy(drawn.astype("int64")).reshape(1, -1)
        self._inputs = {
            item.name: self._prompt if item.name != self._sample.lengths else torch.tensor([prompt])
            for item in self._plan.entrypoints[self._loop.entry].inputs
        }
        token = torch.zeros(1, dtype=torch.int64)
        given = {**self._inputs, self._sample.token: token}
        dims = sizes(self._plan, self._loop.entry, lambda name: given[name].shape)
        self._entry = Walk(self._plan, self._loop.entry, dims)
        self._body = Walk(self._plan, self._loop.body, dims)
        self._dims = dims
        constants = Constants(case.plan)
        self._constants = constants
        self._naive = Naive(constants, machines.remotes["naive"])
        self.blind_client = Blind(constants, machines.remotes["blind"])
        self._sessions = Sessions(case, machines)
        self.run: Mapping[str, Callable[[int], Spoken]] = {
            "local": self._speak_locally,
            "naive": self._speak_naively,
            "blind": self._speak_blindly,
            "genie": partial(self._speak, self._sessions.timed),
        }
        self.counted: Mapping[str, Callable[[int], Spoken]] = {
            **self.run,
            "genie": partial(self._speak, self._sessions.counted),
        }
        """The same, through links that are all counted."""
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        expected = self.run["local"](_WARM).tokens
        for mode in REMOTE:
            found = self.run[mode](_WARM).tokens
            if mode == "genie":
                self.counted[mode](_WARM)
            if found != expected:
                raise RuntimeError(
                    f"{self.case.label}: {mode} says {found}, the model itself {expected}"
                )

    def _speak_locally(self, count: int) -> Spoken:
        clock = _Clock()
        with torch.inference_mode():
            self._module.generate(
                self._prompt,
                attention_mask=torch.ones_like(self._prompt),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                streamer=clock,
            )
        return clock.spoken()

    def _speak_naively(self, count: int) -> Spoken:
        clock = _Clock()
        clock.put(self._prompt)
        self._naive.state.clear()
        for name, state in self._plan.state.items():
            self._naive.state[name] = self._initial(state)
        walk, inputs = self._entry, self._inputs
        for _ in range(count):
            logits = self._naive.run(walk, inputs)[self._sample.logits]
            token = logits.argmax(-1)
            clock.put(token)
            walk, inputs = self._body, {self._sample.token: token}
        return clock.spoken()

    def _speak_blindly(self, count: int) -> Spoken:
        clock, client = _Clock(), self.blind_client
        clock.put(self._prompt)
        client.drop(client.state.values())
        client.state.clear()
        for name, state in self._plan.state.items():
            client.state[name] = self._reset(state)
        walk: Walk = self._entry
        inputs: dict[str, torch.Tensor | Held] = dict(self._inputs)
        known: dict[str, torch.Tensor] = {}
        sampled: Sequence[Held] = ()
        for _ in range(count):
            (logits,) = client.run(walk, inputs, known).values()
            client.drop(sampled)
            sampled = client.call(logits.device, _ARGMAX, [logits])
            client.drop([logits])
            (token,) = client.read(sampled)
            clock.put(token)
            name = self._sample.token
            walk, inputs, known = self._body, {name: sampled[0]}, {name: token}
        client.drop(sampled)
        return clock.spoken()

    def _reset(self, state: State) -> Held:
        """A state's first value, made where it lies."""
        if state.initial != "zeros":
            return self.blind_client.store(state.device, self._constants(state.initial))
        kind = parse_type(state.type)
        op = {
            "out": ["o0"],
            "op": "aten.zeros.default",
            "args": [list(kind.sizes(self._dims))],
            "kwargs": {"dtype": {"dtype": kind.dtype}},
        }
        return self.blind_client.call(state.device, canonical.compact(op), [])[0]

    def _initial(self, state: State) -> torch.Tensor:
        if state.initial != "zeros":
            return self._constants(state.initial).clone()
        kind = parse_type(state.type)
        return torch.zeros(kind.sizes(self._dims), dtype=getattr(torch, DTYPES[kind.dtype][0]))

    def _speak(self, session: Session, count: int) -> Spoken:
        arrays = {name: tensor.numpy() for name, tensor in self._inputs.items()}
        (entrypoint,) = self._plan.loops
        result = session.generate(arrays, max_new_tokens=count, entrypoint=entrypoint)
        tokens = tuple(int(token) for token in result.outputs["tokens"][0])
        spent = result.generation
        if spent is None:
            raise RuntimeError(f"{self.case.label}: the daemon reported no generation")
        return Spoken(tokens, spent.client_ms_per_token, spent.ms_per_token)

    def close(self) -> None:
        """Let go of what the servers keep, and end the session."""
        self.blind_client.forget()
        self._sessions.close()


class _Clock:
    """When tokens came; transformers calls `put` with the prompt, then with each token."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._times: list[float] = []
        self._prompted = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompted:
            self._tokens.append(int(value.item()))
            self._times.append(time.perf_counter())
        self._prompted = True

    def end(self) -> None:
        """Nothing more comes."""

    def spoken(self) -> Spoken:
        count = len(self._times)
        spent = (self._times[-1] - self._times[0]) * 1e3 / (count - 1) if count > 1 else None
        return Spoken(tuple(self._tokens), spent)
