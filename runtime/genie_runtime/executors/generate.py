"""The generation loop on one device: the schedule of its entry, then that of its body, in turns.

The device that holds the scores samples. Each turn begins with the token that it sends to the other
devices of the body; the limit of turns is known to all, and when every row has ended before it, a
token of -1 in all rows says so and is passed on.

A turn's transfers use the same regions as the turn before. That is safe without waiting for bytes
to be sent: the verifier demands that every transfer of the body happens before the turn's scores,
so that whoever begins the next turn, by drawing a token or by receiving one, knows that all bytes
of this turn have arrived and been copied out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from genie_runtime.executors.building import build_schedule
from genie_runtime.executors.runs import Run, TurnsEnded
from genie_runtime.executors.sampling import Sampler
from genie_runtime.executors.schedule import Form, Receive, Schedule, Send, mismatch
from genie_runtime.executors.slots import SlotProgram
from genie_runtime.executors.steps import StepRunner
from genie_runtime.generation import MAX_ROWS, check_fits, check_generation
from genie_runtime.ports import Generation, RunRequest, Sampled
from genie_schemas.errors import GenieError, Place
from genie_schemas.plan import ExecutionPlan, Sample, TransferStep
from genie_schemas.types import parse_type
from genie_schemas.verify.dataflow import type_of

__all__ = ["Generator", "LoopSchedule", "build_loop"]

_SECONDS = 60.0
"""Patience with a device that others compute on, until a token is drawn."""


@dataclass(frozen=True)
class LoopSchedule:
    """What one device does of a loop, at given sizes.

    `scores` are the values of `sample.logits` in entry and body on the device that samples, None
    on others. `tokens` are the names of the token on all devices, `sends` its transfers from here.
    `prompts` are inputs of this device with one row of tokens a sequence.
    """

    entry: Schedule
    body: Schedule
    sample: Sample
    scores: tuple[str, str] | None
    tokens: frozenset[str]
    sends: tuple[Send, ...]
    rows: int
    vocabulary: int
    prompts: tuple[str, ...]
    replaced: frozenset[str]
    """States that each turn replaces."""

    @property
    def inputs(self) -> Mapping[str, Form]:
        """The inputs that the caller gives here: all but the token."""
        both = {**self.entry.inputs, **self.body.inputs}
        return {name: form for name, form in both.items() if name != self.sample.token}

    @property
    def states(self) -> Mapping[str, Form]:
        """The state of the device."""
        return self.entry.states or self.body.states

    @property
    def state_bytes(self) -> int:
        """Bytes of the device's state."""
        return max(self.entry.state_bytes, self.body.state_bytes)

    @property
    def constant_bytes(self) -> int:
        """Bytes of the constants that entry and body load here."""
        return sum({**self.entry.loaded, **self.body.loaded}.values())

    @property
    def replaced_bytes(self) -> int:
        """Bytes of the state that is replaced."""
        return sum(form.nbytes for name, form in self.states.items() if name in self.replaced)

    def peak(self) -> int:
        """The most bytes that a run holds beside constants and state."""
        return max(self.entry.peak(), self.body.peak())

    def whole(self) -> Schedule:
        """What `Schedule.check_regions` looks at: the regions of a request for the loop."""
        return Schedule(
            steps=(),
            inputs=self.inputs,
            incoming={**self.entry.incoming, **self.body.incoming},
            outgoing={**self.entry.outgoing, **self.body.outgoing},
            outputs={},
            states={},
            loaded={},
            base=0,
        )


def build_loop(
    plan: ExecutionPlan,
    device: str,
    name: str,
    dims: Mapping[str, int],
    programs: Mapping[str, SlotProgram],
    constants: Mapping[str, torch.Tensor],
) -> LoopSchedule:
    """Resolve the loop `name` for the plan's `device`; raises what `build_schedule` raises."""
    loop = plan.loops[name]
    sample = loop.sample
    if sample is None:
        raise mismatch(f"the loop {name!r} does not sample", f"loops.{name}", "nothing else is run")
    entry, body = (
        build_schedule(plan, device, part, dims, programs, constants)
        for part in (loop.entry, loop.body)
    )
    values = []
    for part in (loop.entry, loop.body):
        outputs = {output.name: output.value for output in plan.entrypoints[part].outputs}
        values.append(outputs.get(sample.logits) or "")
    kind = parse_type(type_of(plan, values[1]) or "f32[0,0]")
    rows, vocabulary = kind.sizes(dims)
    if not 1 <= rows <= MAX_ROWS:
        raise mismatch(f"{rows} rows are not generated for", "dims", f"from 1 to {MAX_ROWS} are")
    tokens = {sample.token}
    wanted = set(plan.entrypoints[loop.body].steps)
    for step in plan.steps:
        if step.id in wanted and isinstance(step, TransferStep) and step.reads[0] in tokens:
            tokens.update(step.writes)
    samples = values[0] in entry.outputs and values[1] in body.outputs
    told = any(isinstance(step, Receive) and step.value in tokens for step in body.steps)
    if body.steps and not samples and not told:
        cause = f"{device} is not sent {sample.token!r}, and would not learn of the end"
        raise mismatch(f"the loop {name!r} cannot be run", f"loops.{name}", cause)
    return LoopSchedule(
        entry=entry,
        body=body,
        sample=sample,
        scores=(values[0], values[1]) if samples else None,
        tokens=frozenset(tokens),
        sends=tuple(s for s in body.steps if isinstance(s, Send) and s.value in tokens),
        rows=rows,
        vocabulary=vocabulary,
        prompts=tuple(
            name
            for name, form in entry.inputs.items()
            if form.dtype == torch.int64 and len(form.sizes) == 2 and form.sizes[0] == rows
        ),
        replaced=frozenset(n for n, state in plan.state.items() if state.update == "replace"),
    )


class Generator:
    """One run of a loop. `run` returns when its last turn here has ended."""

    def __init__(self, loop: LoopSchedule, run: Run, device: torch.device) -> None:
        self._loop = loop
        self._run = run
        self._device = device
        self._wanted = _wanted(run.request, loop)

    def arrived(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A value that came from another device; a token of -1 in all rows ends the turns.

        A row that ended is fed the pad. Raises TurnsEnded.
        """
        if name not in self._loop.tokens:
            return value
        ended = value < 0
        if bool(ended.all()):
            raise TurnsEnded
        return value.masked_fill(ended, self._loop.sample.pad)

    def run(self, runner: StepRunner) -> None:
        """Run entry and turns, reporting `Sampled` where this device samples.

        Raises GenieError: GEN0479 when prompt and new tokens do not fit the cache, GEN0480 for a
        parameter out of range, GEN0481 when no token can be drawn, and what steps raise.
        """
        loop = self._loop
        runner.read_inputs(loop.entry, loop.inputs)
        self._check_lengths(runner)
        runner.run(loop.entry)
        if loop.scores is None:
            self._follow(runner)
        else:
            self._lead(runner, loop.scores)

    def _check_lengths(self, runner: StepRunner) -> None:
        sample, wanted = self._loop.sample, self._wanted.max_new_tokens
        check_fits(1, wanted, sample.capacity)
        lengths = runner.input(sample.lengths)
        if lengths is None:
            return  # the device that has them looks
        found = lengths.tolist()
        longest = min(
            (self._loop.inputs[name].sizes[1] for name in self._loop.prompts),
            default=sample.capacity,
        )
        if not all(1 <= length <= longest for length in found):
            raise GenieError(
                "GEN0480",
                f"{sample.lengths} has a length that is none of a prompt",
                Place(path=f"inputs.{sample.lengths}"),
                f"lengths are from 1 to {longest} here",
                "give the number of tokens of each prompt, the padding not counted",
            )
        check_fits(max(found), wanted, sample.capacity)

    def _follow(self, runner: StepRunner) -> None:
        """Turns of a device that is sent its tokens, if it has any part in them."""
        if not self._loop.body.steps:
            return
        try:
            for _ in range(self._wanted.max_new_tokens - 1):
                runner.run(self._loop.body)
        except TurnsEnded:
            self._tell_end(runner)

    def _lead(self, runner: StepRunner, scores: tuple[str, str]) -> None:
        """Sample, feed, report; the last token is not fed.

        Other devices wait for the token, so that they get it before it is reported.
        """
        loop, wanted = self._loop, self._wanted
        sampler = Sampler(wanted)
        ended = [False] * loop.rows
        last = wanted.max_new_tokens - 1
        forced = max(map(len, wanted.forced), default=0)
        value = scores[0]
        for index in range(wanted.max_new_tokens):
            report: Callable[[], None] | None = None
            if index < forced:
                tokens = [row[index] if index < len(row) else -1 for row in wanted.forced]
            else:
                with runner.holding(value, _SECONDS):
                    tokens = sampler.draw(runner.returned[value], index, ended)
                report = partial(self._run.emit, Sampled(index, tuple(tokens)))
            for row, token in enumerate(tokens):
                ended[row] = ended[row] or token in loop.sample.eos
            if index == last or all(ended):
                if report is not None:
                    report()
                if index != last:
                    self._tell_end(runner)
                return
            fed = [loop.sample.pad if token < 0 else token for token in tokens]
            runner.feed(loop.sample.token, torch.tensor(fed, device=self._device))
            runner.run(loop.body, report)
            value = scores[1]

    def _tell_end(self, runner: StepRunner) -> None:
        if self._loop.sends:
            end = torch.full((self._loop.rows,), -1, device=self._device)
            for step in self._loop.sends:
                runner.send(step, end)


def _wanted(request: RunRequest, loop: LoopSchedule) -> Generation:
    """The request's parameters, checked against the loop."""
    wanted = request.generation
    if wanted is None:
        raise mismatch("the request does not say how to generate", "generation")
    check_generation(wanted)
    if wanted.forced and len(wanted.forced) != loop.rows:
        raise _forced(f"there are {len(wanted.forced)} rows, the batch has {loop.rows}")
    if any(token >= loop.vocabulary for row in wanted.forced for token in row):
        raise _forced(f"a token is beyond the vocabulary of {loop.vocabulary}")
    count = max(map(len, wanted.forced), default=0)
    if count > wanted.max_new_tokens:
        raise _forced(f"there are {count}, and max_new_tokens is {wanted.max_new_tokens}")
    if any(not _continues(row, count, loop.sample.eos) for row in wanted.forced):
        raise _forced("a row stops, or has -1, before its end; or goes on after it")
    return wanted


def _continues(row: Sequence[int], count: int, eos: Sequence[int]) -> bool:
    """Whether a loop that was interrupted after `count` tokens can have given this row."""
    ends = next((i + 1 for i, token in enumerate(row) if token in eos), None)
    if ends is None:
        return len(row) == count and min(row, default=0) >= 0
    return min(row[:ends]) >= 0 and all(token == -1 for token in row[ends:])


def _forced(cause: str) -> GenieError:
    return GenieError(
        "GEN0480",
        "the forced tokens do not fit the run",
        Place(path="forced"),
        cause,
        "force the tokens that the interrupted run reported, in their order",
    )
