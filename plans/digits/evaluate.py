"""Print the trained CNN's held-out accuracy in plain PyTorch, for comparison with the plan's.

python -m plans.digits.evaluate
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from plans.digits.accuracy import LABELS, Accuracy, accuracy, read_one
from plans.digits.model import build

FOLDER = Path(__file__).resolve().parent


def evaluate() -> Accuracy:
    """Run the committed weights on the committed held-out images."""
    model = build()
    model.load_state_dict(load_file(FOLDER / "digits.safetensors"))
    with torch.no_grad():
        logits = model(torch.from_numpy(read_one(FOLDER / "heldout.safetensors")))
    return accuracy(logits.numpy(), read_one(LABELS))


if __name__ == "__main__":
    print(f"accuracy in plain PyTorch: {evaluate()}")
