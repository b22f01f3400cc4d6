"""Text classification with transformers. DEVICE is all that differs between a CPU and Genie."""

import os
import sys

import torch
from transformers import BertConfig, BertForSequenceClassification

device = os.environ.get("DEVICE", "cpu")
if device == "genie":
    import genie.lazy  # noqa: F401

torch.manual_seed(0)
config = BertConfig(
    vocab_size=500,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
    num_labels=3,
)
model = BertForSequenceClassification(config).eval()
texts = torch.randint(0, 500, (4, 24))
mask = torch.ones_like(texts)
mask[2, 20:] = 0

model.to(device)
with torch.no_grad():
    logits = model(input_ids=texts.to(device), attention_mask=mask.to(device)).logits
for row, label in zip(logits.tolist(), logits.argmax(-1).tolist(), strict=True):
    sys.stdout.write(f"{label} " + " ".join(f"{value:.4f}" for value in row) + "\n")
