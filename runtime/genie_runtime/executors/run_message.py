"""A run as it travels from supervisor to worker, and the parts that messages are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from genie_runtime.generation import MAX_FORCED, MAX_ROWS
from genie_runtime.ports import Generation, Region, RunRequest, StateUse

__all__ = ["Area", "Int", "Message", "Run", "Text", "area"]

Int = Annotated[int, Field(ge=0, le=2**53 - 1)]
Area = Annotated[list[Int], Field(min_length=3, max_length=3)]
Text = Annotated[str, Field(max_length=1024)]
Wired = Annotated[list[Text], Field(max_length=64)]
_Token = Annotated[int, Field(ge=-1, le=2**53 - 1)]
_ROWS = Field(max_length=MAX_ROWS)
Hex = Annotated[
    str, Field(pattern=r"^-?0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4}$|^-?0x0\.0p\+0$", max_length=32)
]


class Message(BaseModel):
    """Base of every message: immutable, no coercion, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def area(region: Region) -> list[int]:
    """A region as it travels."""
    return [region.arena, region.offset, region.length]


class StateData(Message):
    """A `StateUse`."""

    key: Text
    expects: Int
    keep: bool

    @classmethod
    def of(cls, use: StateUse) -> StateData:
        """The message for a use of state."""
        return cls(key=use.key, expects=use.expects, keep=use.keep)

    def use(self) -> StateUse:
        """The use of state that it carries."""
        return StateUse(self.key, self.expects, self.keep)


class GenerationData(Message):
    """A `Generation`; floats travel as their hex form, which is exact."""

    max_new_tokens: Int
    temperature: Hex
    top_k: Int
    top_p: Hex
    seed: Int
    forced: Annotated[list[Annotated[list[_Token], Field(max_length=MAX_FORCED)]], _ROWS]

    @classmethod
    def of(cls, generation: Generation) -> GenerationData:
        """The message for what a generation loop is told, once `check_generation` took it."""
        return cls(
            max_new_tokens=generation.max_new_tokens,
            temperature=float(generation.temperature).hex(),
            top_k=generation.top_k,
            top_p=float(generation.top_p).hex(),
            seed=generation.seed,
            forced=[list(row) for row in generation.forced],
        )

    def generation(self) -> Generation:
        """What it carries."""
        return Generation(
            self.max_new_tokens,
            float.fromhex(self.temperature),
            self.top_k,
            float.fromhex(self.top_p),
            self.seed,
            tuple(tuple(row) for row in self.forced),
        )


class Run(Message):
    """Start a run; its events come back under `ticket`."""

    kind: Literal["run"] = "run"
    ticket: Int
    run_key: Text
    attempt: Int
    digest: Text
    entrypoint: Text
    device: Text
    dims: dict[Text, int]
    inputs: dict[Text, Area]
    incoming: dict[Text, Area]
    outgoing: dict[Text, Area]
    outputs: dict[Text, Area]
    state: StateData | None = None
    generation: GenerationData | None = None
    bells: Wired = Field(default_factory=list)
    triggers: Wired = Field(default_factory=list)
    """Steps whose eventfds follow the frame, the bells' first; see `RunRequest`."""

    @classmethod
    def of(cls, ticket: int, request: RunRequest) -> Run:
        """The message for a request."""
        return cls.model_construct(  # what this process made needs no checking
            ticket=ticket,
            run_key=request.run_key,
            attempt=request.attempt,
            digest=request.plan_digest,
            entrypoint=request.entrypoint,
            device=request.device,
            dims=dict(request.dims),
            inputs={n: area(r) for n, r in request.inputs.items()},
            incoming={n: area(r) for n, r in request.incoming.items()},
            outgoing={n: area(r) for n, r in request.outgoing.items()},
            outputs={n: area(r) for n, r in request.outputs.items()},
            state=None if request.state is None else StateData.of(request.state),
            generation=None
            if request.generation is None
            else GenerationData.of(request.generation),
            bells=list(request.bells),
            triggers=list(request.triggers),
        )

    def request(self, eventfds: Sequence[int] = ()) -> RunRequest:
        """The request that it carries; `eventfds` are those that followed it."""
        wired = len(self.bells)
        return RunRequest(
            run_key=self.run_key,
            attempt=self.attempt,
            plan_digest=self.digest,
            entrypoint=self.entrypoint,
            device=self.device,
            dims=self.dims,
            inputs={n: Region(*r) for n, r in self.inputs.items()},
            incoming={n: Region(*r) for n, r in self.incoming.items()},
            outgoing={n: Region(*r) for n, r in self.outgoing.items()},
            outputs={n: Region(*r) for n, r in self.outputs.items()},
            state=None if self.state is None else self.state.use(),
            generation=None if self.generation is None else self.generation.generation(),
            bells=dict(zip(self.bells, eventfds[:wired], strict=True)),
            triggers=dict(zip(self.triggers, eventfds[wired:], strict=True)),
        )
