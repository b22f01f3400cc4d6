"""`genie execute` with entry points that generate: their parameters, and tokens as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from genie.client import RunResult, Session, Tensor
    from genie.client.progress import OnTokens
    from genie_schemas.plan import ExecutionPlan

__all__ = ["Call", "prepare", "printer"]


@dataclass(frozen=True)
class Call:
    """A checked call. `parameters` are those of a loop; None for other entry points."""

    entrypoint: str
    inputs: Mapping[str, Tensor]
    parameters: Mapping[str, Any] | None

    @property
    def generates(self) -> bool:
        """Whether the entry point is a loop that samples tokens."""
        return self.parameters is not None

    def run(
        self, session: Session, run_id: str | None, deadline: float, on_tokens: OnTokens | None
    ) -> RunResult:
        """Make it, with the plan installed last."""
        if self.parameters is None:
            return session.run(
                self.inputs, entrypoint=self.entrypoint, run_id=run_id, deadline=deadline
            )
        return session.generate(
            self.inputs,
            entrypoint=self.entrypoint,
            run_id=run_id,
            deadline=deadline,
            on_tokens=on_tokens,
            **self.parameters,
        )


def prepare(
    plan: ExecutionPlan,
    entrypoint: str,
    inputs: Mapping[str, Tensor],
    settings: Mapping[str, str],
    *,
    compared: bool,
) -> Call:
    """Check inputs and parameters against the plan, before anything is connected to.

    `compared`: --set belongs to the spec, for --compare. Raises GEN0400 to GEN0405, GEN0407, and
    for parameters GEN0440, GEN0441, GEN0479, GEN0480.
    """
    from genie.client.generation import (
        DEFAULTS,
        check_loop,
        generation,
        parse_parameters,
        sample_of,
        with_lengths,
    )
    from genie.client.inputs import check_inputs
    from genie_runtime.plans import sampling
    from genie_schemas.errors import GenieError

    checked = check_inputs(plan, entrypoint, with_lengths(plan, entrypoint, inputs))
    if sampling(plan, entrypoint) is None:
        if settings and not compared:
            raise GenieError(
                "GEN0441",
                f"the entry point {entrypoint!r} takes no --set",
                remedy="leave it out; with --compare it is for the spec's template variables",
            )
        return Call(entrypoint, inputs, None)
    if compared:
        raise click.UsageError("--compare runs the forward, and does not generate")
    parameters = parse_parameters(settings)
    sample = sample_of(plan, entrypoint)
    asked = generation(**{**DEFAULTS, **parameters})
    check_loop(sample, asked, checked.tensors[sample.lengths].array)
    return Call(entrypoint, inputs, parameters)


def printer(as_json: bool) -> OnTokens:
    """What prints each step as a line on stdout, at once."""

    def show(index: int, tokens: tuple[int, ...]) -> None:
        if as_json:
            line = json.dumps({"index": index, "tokens": list(tokens)})
        else:
            line = "\t".join(map(str, tokens))
        click.echo(line)  # click flushes

    return show
