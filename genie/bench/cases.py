"""The models that are measured: files as a user writes them, beside this module."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from genie.bench.suites import Unavailable

MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Case:
    """A model file and its spec."""

    name: str
    model: Path
    spec: Path


def case(name: str) -> Case:
    """The case `name` ("resnet18", "bert"); Unavailable when a library that it needs is missing."""
    if name == "bert" and find_spec("transformers") is None:
        raise Unavailable("BERT comes from transformers, which is not installed")
    return Case(name, MODELS / f"{name}.py", MODELS / f"{name}.yaml")
