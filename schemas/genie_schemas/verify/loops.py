"""Stage 4: generation loops: both entry points give scores, the token comes back, turns end.

A device other than the one that samples learns of a turn, and of the end, from the token that it
is sent. No transfer of a turn may still be on its way when the next turn begins, or its buffers
would be overwritten: so each must be needed for the turn's scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genie_schemas.errors import GenieError
from genie_schemas.expr import ExprError
from genie_schemas.plan import (
    EntryPoint,
    ExecutionPlan,
    LoadStep,
    Loop,
    ReturnStep,
    Sample,
    Step,
    TransferStep,
)
from genie_schemas.types import TensorType, parse_type
from genie_schemas.verify._report import problem
from genie_schemas.verify.dataflow import type_of


def check_loops(plan: ExecutionPlan) -> list[GenieError]:
    """Check every loop; the entry points themselves have been checked before."""
    errors = []
    for name, loop in plan.loops.items():
        path = f"loops.{name}"
        for part, message in _Loop.problems(plan, loop):
            errors.append(problem("GEN0326", f"{path}.{part}", message))
    return errors


Found = Iterator[tuple[str, str]]
"""(part of the loop, what is wrong with it)"""


@dataclass(frozen=True)
class _Loop:
    plan: ExecutionPlan
    loop: Loop
    sample: Sample
    entry: EntryPoint
    body: EntryPoint

    @classmethod
    def problems(cls, plan: ExecutionPlan, loop: Loop) -> Found:
        missing = [n for n in (loop.entry, loop.body) if n not in plan.entrypoints]
        if missing:
            yield "entry", f"there is no entry point {missing[0]!r}"
        elif loop.entry == loop.body:
            yield "body", "entry and body are one entry point"
        elif loop.sample is None:
            yield "sample", "it does not sample, and no other loop can be run"
        else:
            entry, body = plan.entrypoints[loop.entry], plan.entrypoints[loop.body]
            yield from cls(plan, loop, loop.sample, entry, body).check()

    def check(self) -> Found:
        if self.loop.carry != [self.sample.token]:
            yield "carry", f"it is not [{self.sample.token!r}]"
        if self.loop.until != "sampled":
            yield "until", "it is not 'sampled'"
        scores = [self.scores(entry) for entry in (self.entry, self.body)]
        first, second = scores
        if first is None or second is None:
            name = self.loop.entry if first is None else self.loop.body
            yield "sample.logits", f"no value {self.sample.logits!r} is an output of {name}"
            return
        kind, device = first
        if first != second:
            message = f"it is {second[0]} on {second[1]} in the body, {kind} on {device} before"
            yield "sample.logits", message
        if kind.dtype != "f32" or len(kind.shape) != 2 or kind.shape[1].names:
            yield "sample.logits", f"it is {kind}, not f32[batch,vocabulary]"
            return
        yield from self.tokens(kind)
        yield from self.inputs(kind.shape[0].text, device)
        yield from self.turns(device)

    def scores(self, entry: EntryPoint) -> tuple[TensorType, str] | None:
        """Type and device of an entry point's `logits`."""
        value = {o.name: o.value for o in entry.outputs}.get(self.sample.logits)
        text = None if value is None else type_of(self.plan, value)
        step = next((s for s in self.steps(entry) if _returns(s, value)), None)
        if text is None or not isinstance(step, ReturnStep):
            return None
        return parse_type(text), step.device

    def steps(self, entry: EntryPoint) -> list[Step]:
        wanted = set(entry.steps)
        return [step for step in self.plan.steps if step.id in wanted]

    def tokens(self, logits: TensorType) -> Found:
        vocabulary = logits.shape[1].evaluate({})
        for part, tokens in (("eos", self.sample.eos), ("pad", [self.sample.pad])):
            if any(token >= vocabulary for token in tokens):
                yield f"sample.{part}", f"a token is beyond the vocabulary of {vocabulary}"

    def inputs(self, batch: str, device: str) -> Found:
        """Token and lengths have one number a row; the body takes nothing that is not there."""
        sample, given = self.sample, {item.name: item for item in self.entry.inputs}
        token = next((i for i in self.body.inputs if i.name == sample.token), None)
        row = f"i64[{batch}]"
        if token is None or str(parse_type(token.type)) != row or token.device != device:
            yield "sample.token", f"it is no input {row} of the body on {device}"
        if sample.token in given:
            yield "sample.token", "the entry takes it as well"
        lengths = given.get(sample.lengths)
        if lengths is None or str(parse_type(lengths.type)) != row:
            yield "sample.lengths", f"it is no input {row} of the entry"
        others = {item.name for item in self.body.inputs} - {sample.token}
        for name in sorted(others - set(given)):
            yield "body", f"its input {name!r} is no input of the entry"
        for item in self.entry.inputs:
            kind = parse_type(item.type)
            if kind.dtype != "i64" or [e.text for e in kind.shape[:-1]] != [batch]:
                continue
            try:
                longest = kind.shape[1].bounds(self.plan.ranges())[1]
            except ExprError:
                continue  # the naming stage told
            if longest > sample.capacity:
                message = f"a prompt of {longest} tokens, which {item.name!r} may be, does not fit"
                yield "sample.capacity", message

    def turns(self, sampling: str) -> Found:
        """Every device of the body is told of each turn, and no transfer outlives one."""
        steps = [step for step in self.steps(self.body) if not isinstance(step, LoadStep)]
        shared = {s.id for s in self.steps(self.entry) if isinstance(s, TransferStep)}
        for step in steps:
            if step.id in shared:
                yield "body", f"{step.id!r} belongs to the entry as well"
        tokens, told = {self.sample.token}, {sampling}
        for step in steps:
            if isinstance(step, TransferStep) and step.reads[0] in tokens:
                tokens.update(step.writes)
                told.add(step.dst)
                continue
            devices = {step.src, step.dst} if isinstance(step, TransferStep) else {step.device}
            for device in sorted(devices - told):
                yield "body", f"{device} is not sent {self.sample.token!r} before {step.id!r}"
                told.add(device)
        value = {o.name: o.value for o in self.body.outputs}[self.sample.logits]
        waited: set[str] = set()
        for step in reversed(steps):
            if _returns(step, value):
                waited.add(sampling)
            elif isinstance(step, TransferStep) and step.dst in waited:
                waited.add(step.src)
            elif isinstance(step, TransferStep):
                yield "body", f"{step.id!r} may still be on its way when the next turn begins"


def _returns(step: Step, value: str | None) -> bool:
    return isinstance(step, ReturnStep) and step.reads[0] == value
