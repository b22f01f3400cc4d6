"""An installed plan, seen from the node: what each of its devices receives, sends and needs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from genie_runtime.config import Limits
from genie_runtime.ports import DeviceSpec
from genie_schemas.calls import Layout, layout
from genie_schemas.errors import GenieError, Place
from genie_schemas.expr import ExprError, parse
from genie_schemas.plan import (
    MAX_SAFE_INT,
    ComputeStep,
    EntryPoint,
    ExecutionPlan,
    LoadStep,
    Loop,
    Policy,
    Priority,
    ReturnStep,
    TransferStep,
)
from genie_schemas.reader import read_plan
from genie_schemas.types import TensorType, parse_type
from genie_schemas.verify import verify
from genie_schemas.verify.dataflow import type_of

FALLBACK = Policy(max_attempts=1, timeout_ms=60_000, backoff_ms=0, retry_on=[])
"""For a device that computes nothing: no step of it names a policy."""


@dataclass(frozen=True)
class Hop:
    """A transfer step: the value's type at the source, both devices, and its priority."""

    step: str
    src: str
    dst: str
    type: TensorType
    priority: Priority


@dataclass(frozen=True)
class Share:
    """What one plan device does in one entry point. All sizes follow from the dims of a run.

    Of a loop that samples it is what the device does in its entry and its body: `again` are the
    transfers that come with every turn, `samples` says that the tokens are drawn here. `states` are
    those that it reads or moves on.
    """

    device: str
    inputs: Mapping[str, TensorType]
    incoming: Mapping[str, Hop]
    outgoing: Mapping[str, Hop]
    outputs: Mapping[str, TensorType]
    policies: Mapping[str, Policy]
    computes: bool
    states: Mapping[str, TensorType] = field(default_factory=dict)
    again: frozenset[str] = frozenset()
    samples: bool = False

    def policy(self, step: str | None) -> Policy:
        """The policy of a step, or the strictest one of the share when none is named."""
        if step is not None and step in self.policies:
            return self.policies[step]
        every = self.policies.values()
        return min(every, key=lambda p: p.max_attempts, default=FALLBACK)


@dataclass(frozen=True)
class InstalledPlan:
    """A verified plan with its text and its shares: (entry point, plan device) → share.

    Loops that sample are called like entry points, and have shares under their names.
    `constants` maps a plan device to the constants that it loads: name → (digest, bytes).
    """

    plan: ExecutionPlan
    text: str
    shares: Mapping[tuple[str, str], Share]
    constants: Mapping[str, Mapping[str, tuple[str, int]]]
    constant_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The plan's digest."""
        return self.plan.plan_digest

    def active_shares(self, entrypoint: str, devices: Mapping[str, str]) -> list[Share]:
        """The shares of an entry point on `devices` that have anything to do."""
        found = [self.shares[entrypoint, device] for device in sorted(devices)]
        return [s for s in found if s.inputs or s.incoming or s.outgoing or s.outputs or s.computes]

    def check_entrypoint(self, name: str) -> None:
        """GEN0407 with a suggestion when the plan has no such entry point."""
        called(self.plan, name)

    def stateful(self, name: str) -> bool:
        """Whether an entry point, on any device, has to do with state, or is a loop."""
        loop = sampling(self.plan, name) is not None
        return loop or any(s.states for (entry, _), s in self.shares.items() if entry == name)

    def state_bytes(self, device: str, dims: Mapping[str, int]) -> int:
        """Bytes of a sequence's state on a plan device for these dims. Raises GEN0404."""
        found = [parse_type(s.type) for s in self.plan.state.values() if s.device == device]
        return sum(size_of(type_, dims, MAX_SAFE_INT) for type_ in found)

    def most_state_bytes(self, device: str) -> int:
        """What the state of a sequence can need on a plan device: this much `needs` counts."""
        found = [parse_type(s.type) for s in self.plan.state.values() if s.device == device]
        ranges = self.plan.ranges()
        return sum(max(0, parse(type_.bytes_text()).bounds(ranges)[1]) for type_ in found)

    def state_dims(self) -> frozenset[str]:
        """The dimensions that the sizes of the plan's state depend on."""
        types = [parse_type(state.type) for state in self.plan.state.values()]
        return frozenset(name for type_ in types for name in type_.names)

    def check_dims(self, dims: Mapping[str, int]) -> None:
        """Every dimension bound, within its range; the client checked this, a forger did not."""
        if set(dims) != set(self.plan.dims):
            raise GenieError("GEN0404", "the run does not bind exactly the plan's dimensions")
        for name, value in dims.items():
            span = self.plan.dims[name]
            if not span.min <= value <= span.max:
                raise GenieError(
                    "GEN0404",
                    f"dimension {name} is {value}, beyond its range {span.min} to {span.max}",
                    remedy=f"split the work, or widen dims.{name} in the spec and compile again",
                )


def sampling(plan: ExecutionPlan, name: str) -> Loop | None:
    """The loop of a name that can be called like an entry point; None when there is none."""
    loop = plan.loops.get(name)
    return loop if loop is not None and loop.sample is not None else None


def called(plan: ExecutionPlan, name: str) -> EntryPoint:
    """The entry point of a name; of a loop that samples, the one that takes its inputs. GEN0407."""
    loop = sampling(plan, name)
    found = plan.entrypoints.get(name if loop is None else loop.entry)
    if found is None:
        raise unknown_entrypoint(plan, name)
    return found


def unknown_entrypoint(plan: ExecutionPlan, name: str) -> GenieError:
    """The error for an entry point that the plan does not have."""
    have = [*plan.entrypoints, *(loop for loop in plan.loops if sampling(plan, loop))]
    close = difflib.get_close_matches(name, have, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return GenieError(
        "GEN0407",
        f"the plan has no entry point {name!r}",
        remedy=f"{hint}it has: {', '.join(sorted(have))}",
    )


def install(text: str, expected_digest: str, limits: Limits) -> InstalledPlan:
    """Read and verify a plan as the daemon does, within its limits.

    Raises GEN03xx for an invalid plan, GEN0511 beyond a limit, GEN0304 when the text is not the
    plan that was announced.
    """
    if len(text) > limits.plan_bytes:
        raise GenieError(
            "GEN0511",
            f"plans of more than {limits.plan_bytes >> 20} MiB are refused",
            cause=f"this one has {len(text)} bytes",
            remedy="split the model into several plans",
        )
    plan = read_plan(text)
    if plan.plan_digest != expected_digest:
        raise GenieError(
            "GEN0304",
            "the plan sent is not the one announced",
            Place(path="plan_digest"),
            f"announced {expected_digest[:23]}…, sent {plan.plan_digest[:23]}…",
            "install the plan again: its file changed meanwhile, or was damaged on its way",
        )
    ops = sum(len(program.ops) for program in plan.programs.values())
    if ops > limits.plan_ops or len(plan.steps) > limits.plan_ops:
        raise GenieError(
            "GEN0511",
            f"plans of more than {limits.plan_ops} ops are refused",
            cause=f"this one has {ops} ops and {len(plan.steps)} steps",
            remedy="split the model into several plans",
        )
    verify(plan)
    return view(plan, text)


def view(plan: ExecutionPlan, text: str) -> InstalledPlan:
    """The shares of a verified plan."""
    shares = {
        (entry, device): _share(plan, entry, device)
        for entry in [*plan.entrypoints, *(name for name in plan.loops if sampling(plan, name))]
        for device in plan.devices
    }
    constants: dict[str, dict[str, tuple[str, int]]] = {device: {} for device in plan.devices}
    for step in plan.steps:
        if isinstance(step, LoadStep):
            for name in step.reads:
                constant = plan.constants[name]
                constants[step.device][name] = (constant.digest, constant.bytes)
    sizes = {device: sum(dict(names.values()).values()) for device, names in constants.items()}
    return InstalledPlan(plan, text, shares, constants, sizes)


def _share(plan: ExecutionPlan, entrypoint: str, device: str) -> Share:
    loop = sampling(plan, entrypoint)
    entry = called(plan, entrypoint)
    body = frozenset(plan.entrypoints[loop.body].steps if loop is not None else ())
    wanted = body | set(entry.steps)
    incoming: dict[str, Hop] = {}
    outgoing: dict[str, Hop] = {}
    outputs: dict[str, TensorType] = {}
    policies: dict[str, Policy] = {}
    states: dict[str, TensorType] = {}
    for step in plan.steps:
        if step.id not in wanted:
            continue
        if isinstance(step, TransferStep) and device in (step.src, step.dst):
            hop = Hop(step.id, step.src, step.dst, _type(plan, step.reads[0]), step.priority)
            (outgoing if step.src == device else incoming)[step.id] = hop
        elif isinstance(step, ReturnStep) and step.device == device and loop is None:
            outputs[step.reads[0]] = _type(plan, step.reads[0])
        elif isinstance(step, ComputeStep) and step.device == device:
            policies[step.id] = plan.policies[step.policy]
            for name in {*step.reads, *(effect.state for effect in step.effects())}:
                if name in plan.state:
                    states[name] = parse_type(plan.state[name].type)
    inputs = {i.name: parse_type(i.type) for i in entry.inputs if i.device == device}
    again = body & {*incoming, *outgoing}
    samples = loop is not None and device == _token_device(plan, loop)
    return Share(
        *(device, inputs, incoming, outgoing, outputs, policies, bool(policies)),
        states,
        again,
        samples,
    )


def _token_device(plan: ExecutionPlan, loop: Loop) -> str | None:
    """The device on which a loop's tokens are drawn: the one that takes them."""
    token = None if loop.sample is None else loop.sample.token
    inputs = plan.entrypoints[loop.body].inputs
    return next((item.device for item in inputs if item.name == token), None)


def _type(plan: ExecutionPlan, name: str) -> TensorType:
    text = type_of(plan, name)
    if text is None:  # verify() has established that every name is declared
        raise KeyError(name)
    return parse_type(text)


def concrete(type_: TensorType, dims: Mapping[str, int]) -> str:
    """A type with its sizes filled in: "f32[batch,10]" → "f32[2,10]". Raises ExprError."""
    sizes = ",".join(map(str, type_.sizes(dims)))
    order = ""
    if type_.order != tuple(range(len(type_.shape))):
        order = "{" + ",".join(map(str, type_.order)) + "}"
    return f"{type_.dtype}[{sizes}]{order}"


def size_of(type_: TensorType, dims: Mapping[str, int], limit: int) -> int:
    """Bytes of a value for these dims, within `limit`; GEN0511 beyond it, GEN0404 when negative."""
    try:
        nbytes = type_.nbytes(dims)
    except ExprError as error:
        raise GenieError("GEN0404", f"{type_} has no size here", cause=str(error)) from None
    if nbytes > limit:
        raise GenieError("GEN0511", f"a value of {nbytes} bytes exceeds the limit of {limit}")
    return nbytes


def call_layout(
    plan: InstalledPlan,
    entrypoint: str,
    devices: Iterable[str],
    dims: Mapping[str, int],
    limit: int,
) -> Layout:
    """How requests and replies lie for the plan devices of one node; both sides compute it.

    Raises GEN0404 or GEN0511 for sizes that cannot be.
    """
    shares = [plan.shares[entrypoint, device] for device in sorted(devices)]
    inputs = {n: size_of(t, dims, limit) for share in shares for n, t in share.inputs.items()}
    outputs = {v: size_of(t, dims, limit) for share in shares for v, t in share.outputs.items()}
    return layout(inputs, outputs, len(shares))


def bind(
    plan: ExecutionPlan, devices: list[str], offered: list[DeviceSpec], features: tuple[str, ...]
) -> dict[str, str]:
    """Bind plan devices to node devices: CUDA one to one, CPU devices may share one.

    Devices of kind `any` take a free CUDA device where there is one, and else a CPU device.
    Raises GEN0421 for a feature that is not offered, GEN0420 when the kinds do not fit, GEN0422
    for a device that the plan does not have.
    """
    lacking = [feature for feature in plan.requires if feature not in features]
    if lacking:
        raise GenieError(
            "GEN0421",
            f"the plan requires {', '.join(lacking)}, which is not offered here",
            cause=f"offered: {', '.join(features)}",
            remedy="upgrade the daemon, or compile the plan for it",
        )
    free = [d.id for d in offered if d.kind == "cuda"]
    cpus = [d.id for d in offered if d.kind == "cpu"]
    for name in devices:
        if name not in plan.devices:
            raise GenieError(
                "GEN0422",
                f"the plan has no device {name!r}",
                remedy=f"its devices are {', '.join(plan.devices)}",
            )
    # The choosiest first, so that `any` does not take the last CUDA device from `cuda`.
    order = sorted(devices, key=lambda d: ("cuda", "cpu", "any").index(plan.devices[d].kind))
    binding: dict[str, str] = {}
    for turn, name in enumerate(order):
        kind = plan.devices[name].kind
        if kind in ("cuda", "any") and free:
            binding[name] = free.pop(0)
        elif kind in ("cpu", "any") and cpus:
            binding[name] = cpus[turn % len(cpus)]
        else:
            have = ", ".join(f"{d.id} ({d.kind})" for d in offered) or "none"
            raise GenieError(
                "GEN0420",
                f"no device of kind {kind} is left for the plan's {name}",
                cause=f"devices here: {have}; wanted: "
                + ", ".join(f"{d} ({plan.devices[d].kind})" for d in devices),
                remedy="bind more daemons with --on, or offer devices with genied --device",
            )
    return {name: binding[name] for name in devices}
