"""Programs of torch beyond transformers: control flow, state, dtypes, views."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from genie.client import Session
from tests.compat.attempt import Outcome, attempt_model
from tests.compat.inputs import Input

Case = tuple[nn.Module, dict[str, Input]]
PROGRAMS: dict[str, Callable[[], Case]] = {}


def attempt_program(name: str, session: Session) -> Outcome:
    """One of `PROGRAMS`."""
    model, inputs = PROGRAMS[name]()
    return attempt_model(name, "program", model, inputs, session)
