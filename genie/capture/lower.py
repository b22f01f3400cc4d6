"""Custom operators of libraries that are one of aten's under another name.

A library may hide an aten operator behind a custom one while it is being exported. Where both
compute the same, the plan calls aten's, which its executors have.
"""

from __future__ import annotations

SAME_AS: dict[str, str] = {
    # What transformers calls outside of export is aten._grouped_mm itself.
    "transformers.grouped_mm_fallback.default": "aten._grouped_mm.default",
}
"""Custom operator → aten's with the same parameters and result."""
