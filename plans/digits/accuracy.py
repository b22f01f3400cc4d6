"""Say how many held-out digits a file of outputs gets right.

    python plans/digits/accuracy.py OUTPUTS.safetensors [--labels FILE] [--title TEXT]

OUTPUTS is what `genie execute … --output` wrote: one tensor of logits, float[n, 10].
Only numpy and safetensors are needed. Exit status 2 when the files do not fit together.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

LABELS = Path(__file__).resolve().parent / "labels.safetensors"


@dataclass(frozen=True)
class Accuracy:
    """`right` of `total` samples; prints as "98.9 % (356 of 360)"."""

    right: int
    total: int

    @property
    def percent(self) -> float:
        return 100.0 * self.right / self.total

    def __str__(self) -> str:
        return f"{self.percent:.1f} % ({self.right} of {self.total})"


def accuracy(logits: NDArray[Any], labels: NDArray[np.int64]) -> Accuracy:
    """Compare the largest of logits [n, classes] with labels [n]; ValueError when they differ."""
    if logits.ndim != 2 or logits.shape[0] != labels.shape[0] or not len(labels):
        raise ValueError(f"logits {list(logits.shape)} do not fit labels {list(labels.shape)}")
    return Accuracy(int((logits.argmax(1) == labels).sum()), len(labels))


def read_one(path: Path) -> NDArray[Any]:
    """The only tensor in a safetensors file; ValueError when it holds another number of them."""
    tensors = load_file(path)
    if len(tensors) != 1:
        raise ValueError(f"{path} holds {len(tensors)} tensors, expected one")
    return next(iter(tensors.values()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Accuracy of a file of digit logits.")
    parser.add_argument("outputs", type=Path, metavar="OUTPUTS.safetensors")
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--title", default="accuracy through the plan")
    options = parser.parse_args(arguments)
    try:
        result = accuracy(read_one(options.outputs), read_one(options.labels))
    except (OSError, SafetensorError, ValueError) as error:
        print(f"accuracy.py: {error}", file=sys.stderr)
        return 2
    print(f"{options.title}: {result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
