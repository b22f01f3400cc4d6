"""Constants on disk: a deterministic safetensors file, or the user's own when nothing changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch

from genie.graph.ir import Constant
from genie_schemas import constants
from genie_schemas.constants import ConstantFiles
from genie_schemas.errors import GenieError, Place
from genie_schemas.types import parse_type


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write the tensors, sorted by name; the same tensors always give the same bytes.

    Raises GenieError GEN0330.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # safetensors refuses tensors that share memory, such as slices of one parameter: copy those.
    owners = Counter(tensor.untyped_storage()._cdata for tensor in tensors.values())
    plain = {
        name: tensor if owners[tensor.untyped_storage()._cdata] == 1 else tensor.clone()
        for name, tensor in sorted(tensors.items())
    }
    try:
        save_file(plain, path)
    except (SafetensorError, OSError) as error:
        raise GenieError(
            "GEN0330",
            "the constants cannot be written",
            Place(file=str(path.parent)),
            str(error),
            "check the folder's permissions and the free space of its disk",
        ) from None


def same_tensors(weights: Path, held: Iterable[Constant]) -> bool:
    """Whether `weights` holds every constant under its key with equal type and bytes."""
    with ConstantFiles(weights.parent) as files:
        for constant in held:
            if constant.key != constant.name:
                continue
            kind = parse_type(constant.value.type)
            try:
                entry = files.entry(f"{weights.name}#{constant.key}")
                if entry.dtype != kind.dtype or kind.order != tuple(range(len(kind.shape))):
                    return False
                if entry.shape != kind.sizes({}):
                    return False
                view = files.view(f"{weights.name}#{constant.key}")
            except GenieError:
                return False
            if constants.digest(view) != constant.digest:
                return False
    return True
