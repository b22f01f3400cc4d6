"""A training loop. DEVICE is all that differs between a CPU and Genie."""

import os
import sys

import torch
from torch import nn

device = os.environ.get("DEVICE", "cpu")
if device == "genie":
    import genie.lazy  # noqa: F401

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
images, labels = torch.randn(64, 1, 8, 8), torch.randint(0, 10, (64,))

model.to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(2):
    for start in range(0, 64, 16):
        x, y = images[start : start + 16].to(device), labels[start : start + 16].to(device)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    sys.stdout.write(f"{epoch} {loss.item():.4f}\n")
