"""The operators that no recorder puts a kernel on: one list for both of them."""

from __future__ import annotations

__all__ = ["LEFT"]

LEFT = {
    "aten.alias.default",
    "aten.detach.default",
    "aten.lift.default",
    "aten.lift_fresh.default",
    "aten._to_copy.default",
    "aten.record_stream.default",
    "aten.is_pinned.default",
    "aten._pin_memory.default",
    "aten.is_set_to.default",
    "aten._has_same_storage_numel.default",
    "aten._copy_from_and_resize.default",
    "aten.resize_as_.default",
    "aten.to_padded_tensor.default",
    "aten._nested_tensor_from_tensor_list.default",
    "aten._foreach_copy_.default",
}
"""What torch composes only of operators that are recorded, or what means nothing here.

The first four need nothing but another window. The recorder in Python leaves it to torch, which
makes one for `Parameter(tensor)` too, that no Python object stands for yet; the extension has made
its own before it comes to the others.
"""
