"""Train the digits CNN and write `digits.safetensors`, `heldout.safetensors`, `labels.safetensors`.

    python -m plans.digits.train

It needs scikit-learn, which ships the 1,797 images, and no network; about 15 seconds.
Split, initial weights, augmentation and order come from counter-based or PCG64 integer generators
and the training is single-threaded, so a re-run on the same kind of CPU writes the same bytes.
Another CPU rounds differently: that is why the weights are committed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor, nn

from genie.testing.weights import fill_
from plans.digits.accuracy import accuracy
from plans.digits.model import build

FOLDER = Path(__file__).resolve().parent
HELD_OUT = 360  # of 1,797 images: a fifth
EPOCHS = 40
BATCH = 64
PEAK_RATE = 4e-3

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


def split() -> tuple[Images, Labels, Images, Labels]:
    """Training images and labels, held-out images and labels; images float32[n, 1, 8, 8] in 0..1.

    The held-out fifth is drawn once and is never looked at while training.
    """
    digits = load_digits()
    images = (digits.images[:, None] / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    return images[rest], labels[rest], images[held], labels[held]


def shifted(images: Images, rng: np.random.Generator) -> Images:
    """Move each image by -1, 0 or 1 pixel in both directions, zeros moving in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    down, right = rng.integers(0, 3, (2, len(images), 1, 1))
    rows, columns = down + np.arange(8)[:, None], right + np.arange(8)
    moved: Images = padded[np.arange(len(images))[:, None, None], 0, rows, columns][:, None]
    return moved


def train(images: Images, labels: Labels, epochs: int = EPOCHS) -> nn.Module:
    """AdamW with a one-cycle learning rate on cross-entropy; returns the model in eval mode."""
    rng = np.random.default_rng(1)
    model = fill_(build()).train()
    steps = -(-len(labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, epochs * steps)
    for _ in range(epochs):
        order = rng.permutation(len(labels))
        moved = shifted(images, rng)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            logits: Tensor = model(torch.from_numpy(moved[batch]))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[batch]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return model.eval()


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images, labels, held_images, held_labels = split()
    model = train(images, labels)
    with torch.no_grad():
        logits = model(torch.from_numpy(held_images)).numpy()
    save_tensors(model.state_dict(), FOLDER / "digits.safetensors")
    save_file({"image": held_images}, FOLDER / "heldout.safetensors")
    save_file({"label": held_labels}, FOLDER / "labels.safetensors")
    print(f"held-out accuracy: {accuracy(logits, held_labels)}")


if __name__ == "__main__":
    main()
