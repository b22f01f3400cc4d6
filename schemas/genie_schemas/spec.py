"""The spec, version 1: what a user says about a model before it is compiled.

The pydantic models here are the file's boundary: strict (nothing is converted), closed (unknown
keys are refused) and frozen. What one field alone cannot show, such as a shape that names an
undeclared dimension, is found by `inconsistencies`, which also works on documents that are
otherwise invalid, so that a loader reports every error at once.

Units: sizes are bytes, durations are milliseconds once parsed.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from genie_schemas._spec_checks import Inconsistency, inconsistencies
from genie_schemas._spec_editor import editor_schema
from genie_schemas.units import parse_duration, parse_size

__all__ = [
    "NAME_RULES",
    "SPEC_VERSION",
    "Device",
    "Dim",
    "Dtype",
    "Inconsistency",
    "Input",
    "Llm",
    "ModelRef",
    "Objective",
    "Placement",
    "Policy",
    "Spec",
    "Stage",
    "Workload",
    "inconsistencies",
    "spec_json_schema",
]

SPEC_VERSION = 1
_MAX_EXTENT = 2**40  # no dimension of a real tensor is longer; keeps products within int64
_MAX_CACHE = 2**24
_MALFORMED = "spec_malformed"  # custom error type: the message says all that there is to say

Dtype = Literal[
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
    "float8_e4m3fn",
    "float8_e5m2",
]
Workload = Literal["auto", "vision", "llm", "multimodal", "recsys"]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def _malformed(reason: str) -> PydanticCustomError:
    return PydanticCustomError(_MALFORMED, "{reason}", {"reason": reason})


def _parsed(parse: Callable[[Any], int], accepts: tuple[type, ...], noun: str) -> BeforeValidator:
    def validate(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, accepts):
            raise PydanticCustomError("spec_type", "{noun}", {"noun": noun})
        try:
            return parse(value)
        except ValueError as error:
            raise _malformed(str(error)) from None

    return BeforeValidator(validate)


def _as_tuple(value: object) -> object:
    # Files hold lists; frozen models hold tuples, and strict mode does not convert.
    return tuple(value) if isinstance(value, list) else value


def _not_keyword(value: str) -> str:
    if keyword.iskeyword(value):
        raise _malformed(f"{value!r} is a Python keyword; choose another name")
    return value


def _check_extent(value: object) -> object:
    # One check for the union, else the user would read two errors, one for each member.
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("spec_type", "a whole number or the name of a dimension")
    if isinstance(value, int) and not 0 <= value <= _MAX_EXTENT:
        raise PydanticCustomError("spec_range", "a dimension is between 0 and 2^40 long")
    if isinstance(value, str) and (not _IDENTIFIER.fullmatch(value) or keyword.iskeyword(value)):
        raise _malformed(f"{value!r} is no name for a dimension; use letters, digits and _")
    return value


def _check_weights(value: str) -> str:
    path = PurePath(value)
    if path.is_absolute() or "\0" in value or "\\" in value:
        raise _malformed(
            "weights are not at a path relative to the spec; write one, with forward slashes"
        )
    if path.suffix != ".safetensors":
        raise _malformed(
            "weights are not a .safetensors file; convert them with safetensors.torch.save_file"
        )
    return value


_IDENTIFIER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
_DEVICE_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
_MODULE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$"
_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
NAME_RULES = {
    _IDENTIFIER_PATTERN: "use letters, digits and _, not a digit first; at most 64",
    _DEVICE_PATTERN: "use letters, digits, _ and -, a letter first; at most 64",
    _MODULE_PATTERN: "write it as in named_modules(), such as blocks.0.attention",
    _NAME_PATTERN: "use letters, digits, '.', '_' and '-', a letter or digit first; at most 64",
}
"""Pattern of each kind of name → the rule in words, for error messages."""

Identifier = Annotated[
    str,
    StringConstraints(pattern=_IDENTIFIER_PATTERN),
    AfterValidator(_not_keyword),
]
DeviceId = Annotated[str, StringConstraints(pattern=_DEVICE_PATTERN)]
ModulePath = Annotated[
    str,
    StringConstraints(pattern=_MODULE_PATTERN, max_length=512),
]
Size = Annotated[
    int,
    _parsed(parse_size, (int, str), "a size, such as 2GiB"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B$"},
            ]
        }
    ),
]
Duration = Annotated[
    int,
    _parsed(parse_duration, (str,), "a duration, such as 30s"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h)$"}),
]
Extent = Annotated[
    Annotated[int, Field(ge=0, le=_MAX_EXTENT)] | Identifier, BeforeValidator(_check_extent)
]
SpecName = Annotated[str, StringConstraints(pattern=_NAME_PATTERN)]


class _Closed(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class ModelRef(_Closed):
    """Which module is compiled, and with which weights."""

    entry: Identifier = "build"
    """Callable in model.py that returns the torch.nn.Module."""
    args: dict[Identifier, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the entry."""
    weights: (
        Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_check_weights)] | None
    ) = None
    """A safetensors file to load into the module, relative to the spec."""


class Input(_Closed):
    """One tensor parameter of the module's forward."""

    dtype: Dtype
    """Element type, by its torch name."""
    shape: Annotated[tuple[Extent, ...], Field(max_length=64), BeforeValidator(_as_tuple)]
    """Extents: a number, or the name of a dimension declared under dims. [] is a scalar."""
    low: int = 0
    """Integer dtypes only: least value of the example that the model is traced with."""
    high: int | None = None
    """Integer dtypes only: the example's values stay below this, as with torch.randint. Set it to
    the number of rows when the input indexes an embedding. Default: low + 2."""

    @property
    def example_bounds(self) -> tuple[int, int] | None:
        """Half-open range [low, high) of example values; None when the dtype is not integer."""
        if "int" not in self.dtype:
            return None
        return self.low, self.low + 2 if self.high is None else self.high


def _default_example(data: dict[str, Any]) -> int:
    # 2, because tracing with an extent of 1 silently fixes the dimension to 1.
    return int(min(max(2, data.get("min", 1)), data.get("max", 2)))


class Dim(_Closed):
    """A dynamic dimension; its bounds are inclusive."""

    min: Annotated[int, Field(ge=1, le=_MAX_EXTENT)] = 1
    """Least extent that a run may use."""
    max: Annotated[int, Field(ge=2, le=_MAX_EXTENT)]
    """Greatest extent that a run may use; memory is planned for it."""
    example: Annotated[int, Field(ge=1, le=_MAX_EXTENT)] = Field(default_factory=_default_example)
    """Extent the model is traced with, at least 2. Default: 2, moved into the range."""


class Device(_Closed):
    """An accelerator that the plan may use; it is bound to a real one at execution."""

    id: DeviceId
    """Name of the device within the plan."""
    kind: Literal["cpu", "cuda", "any"] = "any"
    """What it must be; `any` takes what the executing machine offers."""
    memory_bytes: Size | None = Field(default=None, alias="memory")
    """Most memory that the plan may use there, such as 2GiB. Default: what the device has."""


class Stage(_Closed):
    """Modules that run together on one device."""

    device: DeviceId
    """Id of a device declared under devices."""
    modules: Annotated[tuple[ModulePath, ...], Field(min_length=1), BeforeValidator(_as_tuple)]
    """Qualified module names, as in named_modules()."""


class Placement(_Closed):
    """Stages in the order in which they run."""

    stages: Annotated[tuple[Stage, ...], Field(min_length=1), BeforeValidator(_as_tuple)]
    """The stages; modules that no stage names follow the module they belong to."""


def _placement_kind(value: object) -> str | None:
    if value == "auto":
        return "(auto)"
    return "(stages)" if isinstance(value, dict | Placement) else None


class Objective(_Closed):
    """What the scheduler optimises for."""

    minimize: Literal["latency"] = "latency"
    """The quantity to minimise."""


class Policy(_Closed):
    """How often and for how long a step is tried."""

    max_attempts: Annotated[int, Field(ge=1, le=4)] = 4
    """Attempts in all, the first included."""
    timeout_ms: Annotated[Duration, Field(ge=1, le=86_400_000)] = Field(
        default=30_000, alias="timeout", json_schema_extra={"default": "30s"}
    )
    """Longest time for one attempt, such as 30s."""
    backoff_ms: Annotated[Duration, Field(le=60_000)] = Field(
        default=50, alias="backoff", json_schema_extra={"default": "50ms"}
    )
    """Pause before the second attempt, such as 50ms; it doubles with each further one."""
    retry_on: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] | None = None
    """Error codes that are retried. Default: those that the runtime knows to be transient."""


class Llm(_Closed):
    """Bounds of a language model's key-value cache; what is left out follows from the model."""

    max_cache_len: Annotated[int, Field(ge=2, le=_MAX_CACHE)] | None = None
    """Most tokens of a sequence, prompt and generated together. Default: the positions that the
    model tells apart, at most 4096."""
    max_prompt_len: Annotated[int, Field(ge=1, le=_MAX_CACHE)] | None = None
    """Most tokens of a prompt. Default: max_cache_len, at most 1024."""
    max_batch: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Most sequences of one call. Default: 8, or fewer, so that the cache stays below 1 GiB."""


def _check_version(value: object) -> object:
    # Literal[1] alone would take True and 1.0, which compare equal to 1.
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticCustomError("spec_type", "the whole number 1")
    if value != SPEC_VERSION:
        raise PydanticCustomError("spec_version", "{found}", {"found": value})
    return value


def _with_default_policy(value: object) -> object:
    return {"default": {}, **value} if isinstance(value, dict) else value


class Spec(_Closed):
    """What a user says about a model before it is compiled."""

    genie: Annotated[Literal[1], BeforeValidator(_check_version)]
    """Version of the spec's format."""
    name: SpecName
    """Name of the compiled model; the plan and its constants files carry it."""
    workload: Workload = "auto"
    """What kind of model this is; auto derives it from the graph."""
    model: ModelRef = ModelRef()
    """Which module is compiled, and with which weights."""
    inputs: dict[Identifier, Input] = Field(default_factory=dict)
    """The parameters of the module's forward, by name; {} for one that takes none. Left out for a
    language model with a cache: its entry points are then prefill, decode and generate."""
    llm: Llm | None = None
    """Bounds of a language model's cache; for specs without inputs."""
    dims: dict[Identifier, Dim] = Field(default_factory=dict)
    """Dynamic dimensions, by the name that shapes use."""
    devices: Annotated[
        tuple[Device, ...], Field(min_length=1, max_length=1024), BeforeValidator(_as_tuple)
    ] = Field(
        default_factory=lambda: (Device(id="d0"),),
        json_schema_extra={"default": [{"id": "d0", "kind": "any"}]},
    )
    """Accelerators the plan may use. Default: one of any kind, d0."""
    placement: Annotated[
        Annotated[Literal["auto"], Tag("(auto)")] | Annotated[Placement, Tag("(stages)")],
        Discriminator(
            _placement_kind,
            custom_error_type="spec_type",
            custom_error_message="auto, or a mapping with stages",
        ),
    ] = "auto"
    """Which module runs where: auto leaves it to the scheduler."""
    objective: Objective = Objective()
    """What the scheduler optimises for."""
    random: Literal["refuse", "seeded"] = "refuse"
    """What becomes of operators that draw random numbers: refuse them, or draw them from a seed
    that each run is given as the input rng.seed."""
    policies: Annotated[dict[Identifier, Policy], BeforeValidator(_with_default_policy)] = Field(
        default_factory=lambda: {"default": Policy()}
    )
    """Retry policies by name; `default` always exists and applies where no other is named."""

    @property
    def infers_inputs(self) -> bool:
        """Whether the spec leaves the inputs to the compiler, as language models' specs may."""
        return "inputs" not in self.model_fields_set

    def dumps(self) -> str:
        """What was written of it, policies apart, as JSON text for a process of the compiler's."""
        return self.model_dump_json(by_alias=True, exclude={"policies"}, exclude_unset=True)

    @model_validator(mode="after")
    def _consistent(self) -> Spec:
        written = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        found = inconsistencies(written)
        if found:
            raise PydanticCustomError("spec_inconsistent", "{reason}", {"reason": found[0].message})
        return self


def spec_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of spec version 1, for editors and `genie schema spec`.

    It describes the file before templates are rendered and does not express the checks across
    fields that `inconsistencies` makes.
    """
    return editor_schema(Spec.model_json_schema(by_alias=True))
