"""ExecutionPlan v1: the models of the file. `docs/plan-format.md` tells what each field means.

Models mirror the wire exactly; nothing here touches files or computes. Reading is
`genie_schemas.reader`, writing `genie_schemas.writer`, checking `genie_schemas.verify`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from genie_schemas.names import IDENTIFIER, MAX_NAME, NAME

FORMAT = "genie.execution_plan"
FORMAT_VERSION = "1.1"
"""The newest format that this version reads and writes."""

STATELESS_VERSION = "1.0"
"""The format of plans that hold nothing newer: an older reader reads them as well."""

STATE = "state.kv"
LOOP = "loop.generate"
"""What plans with state, and plans with loops, list in `requires`."""

MAX_SAFE_INT = 2**53 - 1

Name = Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]
Identifier = Annotated[str, Field(pattern=IDENTIFIER, max_length=64)]
Digest = Annotated[str, Field(pattern=r"^(sha256|blake3):[0-9a-f]{64}$")]
ProgramKey = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
ExprText = Annotated[str, Field(min_length=1, max_length=4096)]
TypeText = Annotated[str, Field(min_length=3, max_length=4096)]
Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INT)]
Positive = Annotated[int, Field(ge=1, le=MAX_SAFE_INT)]
OpName = Annotated[str, Field(pattern=r"^[a-z_]+(\.[A-Za-z0-9_]+){1,2}$", max_length=128)]
DeviceKind = Literal["any", "cpu", "cuda"]
Priority = Literal["decode", "prefill", "activation", "weights"]


class Model(BaseModel):
    """Base of every wire model: immutable, no coercion, no unknown field."""

    # Built at first use: a daemon accepts sessions before it has seen a plan.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Opset(Model):
    """What the plan was captured with. `schemas` maps each overload used to its schema's hash."""

    torch: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    schemas: dict[OpName, Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]]


class Provenance(Model):
    """Where the plan came from. Outside the digest; never a clock, a host or a path."""

    spec: Digest
    graph: Digest
    weights: Digest
    compiler: str
    passes: list[str]


class Dim(Model):
    """The range of a symbolic dimension, both ends included."""

    min: Count
    max: Count


class Device(Model):
    """A logical device. `needs` is the peak in bytes of the plan on it, at the largest sizes."""

    kind: DeviceKind
    memory_bytes: Positive | None = None
    needs: Count


class Link(Model):
    """What the schedule assumed of a path between two devices."""

    bandwidth_bytes_per_s: Positive
    round_trip_us: Count


class EntryInput(Model):
    """An input of an entry point; a value of the same name holds it on `device`."""

    name: Name
    type: TypeText
    device: Identifier


class EntryOutput(Model):
    """An output of an entry point: a value, or a literal (a tagged argument) that never changes."""

    name: Name
    value: Name | None = None
    literal: Any = None


class EntryPoint(Model):
    """A callable of the plan."""

    inputs: list[EntryInput]
    outputs: list[EntryOutput]
    steps: list[Name]


class Constant(Model):
    """A tensor beside the plan: `source` is "<file>#<key>" of a safetensors file."""

    type: TypeText
    digest: Digest
    bytes: Count
    source: Annotated[str, Field(pattern=r"^[^/\\#\x00]+\.safetensors#.+$", max_length=1024)]


class State(Model):
    """A named tensor that lives on a device across the calls of a session."""

    type: TypeText
    device: Identifier
    initial: Name | Literal["zeros"]
    version: Count
    update: Literal["append", "replace"]


class ProgramValue(Model):
    """An input or an output of a program."""

    name: Name
    type: TypeText


class Op(Model):
    """One operator call. Arguments are tagged values: see `genie_schemas.args`."""

    out: list[Name | None]
    op: OpName
    args: list[Any]
    kwargs: dict[Identifier, Any] = Field(default_factory=dict)


class Program(Model):
    """Straight-line code. `scratch_bytes` bounds what it holds beyond its inputs."""

    inputs: list[ProgramValue]
    outputs: list[ProgramValue]
    scratch_bytes: ExprText
    ops: list[Op]


class Value(Model):
    """A tensor between steps, on one device."""

    type: TypeText
    bytes: ExprText
    device: Identifier


class Policy(Model):
    """How often and how long a step may be tried; `retry_on` lists error codes."""

    max_attempts: Annotated[int, Field(ge=1, le=16)]
    timeout_ms: Annotated[int, Field(ge=1, le=86_400_000)]
    backoff_ms: Annotated[int, Field(ge=0, le=3_600_000)]
    retry_on: list[Annotated[str, Field(pattern=r"^GEN\d{4}$")]]


class StateEffect(Model):
    """A step that moves a state on: `expects` is "entry" or the id of the step before it.

    An `append` state is among the step's reads and its program writes into it; a `replace` state
    takes `value`, which the step writes, when the run commits.
    """

    state: Name
    expects: Name
    value: Name | None = None


class _Step(Model):
    id: Name
    after: list[Name] = Field(default_factory=list)
    policy: Identifier = "default"
    priority: Priority = "activation"


class LoadStep(_Step):
    """Make constants resident on a device; done already when they are."""

    kind: Literal["load"]
    device: Identifier
    reads: list[Name]


class ComputeStep(_Step):
    """Run a program: `reads` are its inputs in order, `writes` its outputs in order."""

    kind: Literal["compute"]
    device: Identifier
    program: ProgramKey
    reads: list[Name]
    writes: list[Name]
    effect: Literal["pure"] | StateEffect | list[StateEffect] = "pure"

    def effects(self) -> list[StateEffect]:
        """The states that the step moves on; none for a pure one."""
        if self.effect == "pure":
            return []
        return self.effect if isinstance(self.effect, list) else [self.effect]


class TransferStep(_Step):
    """Copy one value to another device under a new name; each side derives its half."""

    kind: Literal["transfer"]
    src: Identifier
    dst: Identifier
    reads: Annotated[list[Name], Field(min_length=1, max_length=1)]
    writes: Annotated[list[Name], Field(min_length=1, max_length=1)]


class FreeStep(_Step):
    """Drop values that no later step reads."""

    kind: Literal["free"]
    device: Identifier
    reads: list[Name]


class ReturnStep(_Step):
    """Hand one value to the caller as the outputs that name it."""

    kind: Literal["return"]
    device: Identifier
    reads: Annotated[list[Name], Field(min_length=1, max_length=1)]


Step = Annotated[
    LoadStep | ComputeStep | TransferStep | FreeStep | ReturnStep, Field(discriminator="kind")
]


class Sample(Model):
    """How a generation loop makes the next token of its entry points' output `logits`.

    `logits` is f32[batch,vocabulary] of both entry points and lies on one device; `token` is the
    body's input i64[batch] on the same device; `lengths` the entry's input i64[batch] with the
    number of tokens of each prompt. Prompt and new tokens together are at most `capacity`. A row
    ends with a token of `eos`; rows that ended before others give `pad`.
    """

    logits: Name
    token: Name
    lengths: Name
    capacity: Positive
    eos: list[Count]
    pad: Count


class Loop(Model):
    """A loop that the daemon runs: enter with `entry`, repeat `body`, carrying values.

    With `sample` it is called like an entry point of the loop's name: it takes the inputs of
    `entry` and gives `tokens`, i64[batch, number of new tokens]. `carry` is then the one input of
    the body that the sampled token becomes, and `until` is "sampled".
    """

    entry: Identifier
    body: Identifier
    carry: list[Name]
    until: str
    sample: Sample | None = None


class ExecutionPlan(Model):
    """The whole file. `advisory` is never read by an executor and may hold any field."""

    format: Literal["genie.execution_plan"]
    format_version: str
    min_reader: str
    plan_digest: Digest
    name: Identifier
    requires: list[str]
    opset: Opset
    provenance: Provenance
    dims: dict[Identifier, Dim]
    devices: dict[Identifier, Device]
    links: dict[str, Link]
    entrypoints: dict[Identifier, EntryPoint]
    constants: dict[Name, Constant]
    state: dict[Name, State]
    programs: dict[ProgramKey, Program]
    values: dict[Name, Value]
    policies: dict[Identifier, Policy]
    steps: list[Step]
    loops: dict[Identifier, Loop]
    advisory: dict[str, Any]

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Dimension → (min, max), as `Expr.bounds` takes them."""
        return {name: (dim.min, dim.max) for name, dim in self.dims.items()}


def plan_json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, as `genie schema plan` prints it."""
    schema = ExecutionPlan.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"Genie ExecutionPlan {FORMAT_VERSION}"
    return schema
