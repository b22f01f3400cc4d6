"""From `model.py` and a spec to an `nn.Module` with its weights, with located errors.

This runs the user's code: it is called in a child process (`genie.driver`), never in the CLI's.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from genie_schemas.errors import GenieError, GenieErrors, Place
from genie_schemas.errors.user_code import user_error
from genie_schemas.spec import Spec


def load_model(
    path: Path, shown: str, spec: Spec, weights: Path | None, *, mapped: bool = False
) -> nn.Module:
    """Import `path`, call the spec's entry and load `weights` into what it returns.

    `shown` is the file's name as the user gave it, for messages; `mapped` is `load_weights`'s.
    Raises GenieError GEN0200 file
    missing, GEN0201 no such entry, GEN0202 the user's code raised, GEN0203 no nn.Module, GEN0204
    wrong arguments, GEN0210 … GEN0212 weights missing, unreadable, or of other names or shapes.
    """
    module = _import(path, shown)
    entry = getattr(module, spec.model.entry, None)
    if not callable(entry):
        raise _no_entry(module, spec.model.entry, shown)
    _check_arguments(entry, spec.model.args, spec.model.entry, shown)
    try:
        model = entry(**spec.model.args)
    except BaseException as error:
        raise user_error(error, path, shown, f"{spec.model.entry}() raised") from error
    if not isinstance(model, nn.Module):
        raise GenieError(
            "GEN0203",
            f"{spec.model.entry}() returned {type(model).__name__}, not a torch.nn.Module",
            _place_of(entry, shown),
            remedy="return the module itself from the entry",
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise GenieError(
            "GEN0203",
            f"{spec.model.entry}() returned a TorchScript module, which cannot be captured",
            _place_of(entry, shown),
            remedy="return the Python module that it was made from",
        )

    def where(name: str) -> Place:
        return _origin(lambda: entry(**spec.model.args), entry, name, path, shown)

    _check_modules(model, where)
    _check_tensors(model, where)
    if weights is not None:
        load_weights(model, weights, mapped=mapped)
    return model


def _import(path: Path, shown: str) -> ModuleType:
    if not path.is_file():
        raise GenieError(
            "GEN0200",
            f"there is no model file {shown}",
            Place(file=shown),
            remedy="name the Python file that holds the spec's entry",
        )
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("genie_user_model", path)
    if spec is None or spec.loader is None:
        raise GenieError(
            "GEN0200",
            f"{shown} is no Python file",
            Place(file=shown),
            remedy="name a file that ends in .py",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # sys.exit() in a model file, too, is its failure
        raise user_error(error, path, shown, f"importing {shown} raised") from error
    return module


def _no_entry(module: ModuleType, entry: str, shown: str) -> GenieError:
    names = [
        n
        for n, v in vars(module).items()
        if callable(v) and getattr(v, "__module__", None) == module.__name__
    ]
    close = difflib.get_close_matches(entry, names, 1)
    listed = ", ".join(sorted(names)) or "none"
    return GenieError(
        "GEN0201",
        f"{shown} has no callable {entry!r}",
        Place(file=shown),
        f"it defines: {listed}",
        f"did you mean {close[0]!r}? Set model.entry in the spec"
        if close
        else "set model.entry in the spec to one of them",
    )


def _check_arguments(entry: Any, given: dict[str, Any], name: str, shown: str) -> None:
    try:
        inspect.signature(entry).bind(**given)
    except TypeError as error:
        raise GenieError(
            "GEN0204",
            f"{name}() does not take the spec's model.args",
            _place_of(entry, shown),
            str(error),
            f"its signature is {name}{inspect.signature(entry)}",
        ) from None
    except ValueError:
        return  # a callable without a signature: calling it will tell


def _place_of(function: Any, shown: str) -> Place:
    code = getattr(function, "__code__", None)
    return Place(file=shown, line=code.co_firstlineno if code else None)


def _origin(make: Any, entry: Any, name: str, path: Path, shown: str) -> Place:
    """Where the model got its tensor `name`; the entry where that cannot be told."""
    from genie.model.origin import origin

    return origin(make, name, path, shown) or _place_of(entry, shown)


def _check_modules(model: nn.Module, origin: Callable[[str], Place]) -> None:
    """Every module is Python's own: GEN0222 for TorchScript, GEN0223 for packed weights."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise GenieError(
                "GEN0222",
                f"the module {name!r} is a TorchScript module, which cannot be captured",
                origin(name),
                remedy="use the Python module that it was made from",
            )
        if any(isinstance(held, torch.ScriptObject) for held in vars(module).values()):
            owner = name.removesuffix("._packed_params")
            raise GenieError(
                "GEN0223",
                f"the module {owner!r} cannot be carried by a plan",
                origin(owner),
                f"{type(model.get_submodule(owner)).__name__} of "
                f"{type(model.get_submodule(owner)).__module__} keeps its weights packed for one "
                "kernel library",
                "compile the float model, or keep int8 weights and their scale as buffers and "
                "multiply them in the forward",
            )


def _check_tensors(model: nn.Module, origin: Callable[[str], Place]) -> None:
    """Every tensor of the model holds dense values: GEN0205 or GEN0223 when one does not."""
    named = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, tensor in named if torch.nn.parameter.is_lazy(tensor)]
    if lazy:
        raise GenieError(
            "GEN0205",
            f"the model has {len(lazy)} parameters that are not initialised yet",
            origin(lazy[0]),
            f"the first is {lazy[0]}, of a lazy module",
            "call the model once with an example in the entry, or give the sizes",
        )
    meta = [name for name, tensor in (*named, *_attributes(model)) if tensor.is_meta]
    if meta:
        raise GenieError(
            "GEN0205",
            f"the model has {len(meta)} tensors on the meta device, which hold no values",
            origin(meta[0]),
            f"the first is {meta[0]}",
            "materialise it (to_empty) and load weights, or build it on the CPU",
        )
    for name, tensor in named:
        if tensor.is_quantized or tensor.layout != torch.strided:
            kind = "quantised" if tensor.is_quantized else f"of the layout {tensor.layout}"
            raise GenieError(
                "GEN0223",
                f"the model's tensor {name!r} cannot be carried by a plan",
                origin(name),
                f"it is {kind}",
                "convert it to a dense tensor of a common dtype in the entry",
            )


def _attributes(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that modules hold without registering them."""
    for path, module in model.named_modules():
        for name, held in vars(module).items():
            if isinstance(held, torch.Tensor):
                yield f"{path}.{name}" if path else name, held


MAPPED_BYTES = 1 << 24
"""From this size on, a parameter may be the mapped file itself."""


def load_weights(model: nn.Module, path: Path, *, mapped: bool = False) -> None:
    """Load a safetensors file into the module, strictly. GEN0210, GEN0211, GEN0212.

    With `mapped`, large parameters are the file's own pages instead of copies. They need not lie
    on 64 bytes then, where kernels round otherwise: for a model that is looked at and not run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise GenieError(
            "GEN0210",
            f"there is no weights file {path.name}",
            Place(file=str(path)),
            remedy="set model.weights to a safetensors file, relative to the spec",
        )
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise GenieError(
            "GEN0211",
            f"the weights file {path.name} cannot be read",
            Place(file=str(path)),
            str(error),
            "write it with safetensors.torch.save_file",
        ) from None
    # A module's extra state may be any object; only tensors come from a weights file.
    expected = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    problems = _differences(expected, state, path)
    if problems:
        raise GenieErrors(problems)
    if mapped:
        for name, parameter in _mappable(model):
            if name in state:
                parameter.data = state.pop(name)
    model.load_state_dict(state, strict=False)


def _mappable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Large parameters that loading only copies into, and that share no memory with others."""
    every = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
        *_attributes(model),
    )
    owners = Counter(tensor.untyped_storage()._cdata for _, tensor in every)
    for path, module in model.named_modules():
        own = type(module)._load_from_state_dict is not nn.Module._load_from_state_dict
        if own or module._load_state_dict_pre_hooks or module._load_state_dict_post_hooks:
            continue
        for last, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{last}" if path else last
            alone = owners[parameter.untyped_storage()._cdata] == 1
            if alone and parameter.nbytes >= MAPPED_BYTES:
                yield name, parameter


def _memory(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Equal for tensors that are the same elements of the same memory."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _differences(
    expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor], path: Path
) -> list[GenieError]:
    place = Place(file=str(path))
    # safetensors keeps one name of tied tensors: the others count as given with it.
    given = {_memory(t) for n, t in expected.items() if n in found}
    problems = []
    for name, tensor in expected.items():
        if name not in found:
            if _memory(tensor) not in given:
                close = difflib.get_close_matches(name, [*set(found) - set(expected)], 1)
                remedy = f"did you mean {close[0]!r}?" if close else "save the whole state_dict"
                message = f"the weights file has no {name!r}"
                problems.append(GenieError("GEN0212", message, place, remedy=remedy))
        elif found[name].shape != tensor.shape:
            message = (
                f"{name!r} is {list(found[name].shape)} in the weights file "
                f"and {list(tensor.shape)} in the model"
            )
            remedy = "build the model with the arguments it was trained with (model.args)"
            problems.append(GenieError("GEN0212", message, place, remedy=remedy))
        elif found[name].dtype != tensor.dtype:
            message = (
                f"{name!r} is {found[name].dtype} in the weights file and {tensor.dtype} "
                "in the model"
            )
            remedy = "convert the file, or the model with .to(dtype) in the entry"
            problems.append(GenieError("GEN0212", message, place, remedy=remedy))
    for name in sorted(set(found) - set(expected)):
        message = f"the weights file has {name!r}, which the model does not"
        remedy = "load it into the model that it was saved from"
        problems.append(GenieError("GEN0212", message, place, remedy=remedy))
    return problems[:20]
