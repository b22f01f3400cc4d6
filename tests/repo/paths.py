"""Where things lie in the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "genie": ROOT / "genie",
    "genie_schemas": ROOT / "schemas/genie_schemas",
    "genie_runtime": ROOT / "runtime/genie_runtime",
    "genie_transport": ROOT / "native/genie_transport",
}
