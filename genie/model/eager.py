"""Running the user's model eagerly, to compare a plan's result with it.

`run_eager` starts a child process (this module's main) because the model is the user's code.
Tensors cross as safetensors files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from genie_schemas.errors import GenieError, GenieErrors, Place


def run_eager(
    model: Path,
    spec: Path,
    inputs: Path,
    outputs: Path,
    threads: int,
    settings: Mapping[str, str] | None = None,
    updated: Iterable[str] = (),
) -> None:
    """Run forward on the tensors of `inputs` and write its tensors, by output name, to `outputs`.

    The model's own tensors whose new values the plan returns (`updated`), and every other buffer
    that the forward changed, are written with them. Both are safetensors files. `threads` is
    torch's thread count: equal bits need the same count as the executor's. Raises GenieError as
    loading the model does, GEN0202 when forward raises, GEN0228 when the child dies.
    """
    from genie.spec import load_spec

    loaded = load_spec(spec, dict(settings or {}))
    request: dict[str, Any] = {
        "model": str(model.absolute()),
        "shown": str(model),
        "spec": loaded.spec.dumps(),
        "weights": str(loaded.weights.absolute()) if loaded.weights else None,
        "inputs": str(inputs),
        "outputs": str(outputs),
        "threads": threads,
        "updated": list(updated),
    }
    with tempfile.TemporaryDirectory(prefix="genie-eager-") as folder:
        request["errors"] = str(Path(folder) / "error.json")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "genie.model.eager"],
            input=json.dumps(request),
            text=True,
            check=False,
        )
        failed = Path(request["errors"])
        if failed.exists():
            errors = [GenieError.from_json(e) for e in json.loads(failed.read_text("utf-8"))]
            raise errors[0] if len(errors) == 1 else GenieErrors(errors)
    if done.returncode != 0:
        raise GenieError(
            "GEN0228",
            "the process that runs the model eagerly ended without an answer",
            Place(file=str(model)),
            f"exit status {done.returncode}",
            "its last output is above; run the model file with Python to see more",
        )


def main() -> int:
    """Answer one request from standard input."""
    request = json.loads(sys.stdin.read())
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - the user's code may read it
    os.dup2(2, 1)
    try:
        _run(request)
    except GenieErrors as error:
        items = [e.to_json() for e in error.errors]
    except GenieError as error:
        items = [error.to_json()]
    else:
        return 0
    Path(request["errors"]).write_text(json.dumps(items), encoding="utf-8")
    return 1


def _run(request: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from genie.graph.outputs import named_leaves
    from genie.model.loader import load_model
    from genie_schemas import rng
    from genie_schemas.errors.user_code import user_error
    from genie_schemas.spec import Spec

    torch.set_num_threads(request["threads"])
    # The fused path of nn.TransformerEncoder rounds differently from the operators that the
    # module is defined by, which are what a capture records.
    torch.backends.mha.set_fastpath_enabled(False)
    spec = Spec.model_validate_json(request["spec"])
    path = Path(request["model"])
    weights = Path(request["weights"]) if request["weights"] else None
    # Some kernels round differently when a weight requires a gradient; a plan's never does.
    model = load_model(path, request["shown"], spec, weights).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.named_buffers(remove_duplicate=False)}
    # A mapped file's tensors are not 64-byte aligned, and kernels round by alignment: copy.
    inputs = {name: tensor.clone() for name, tensor in load_file(request["inputs"]).items()}
    if (seed := inputs.pop(rng.SEED, None)) is not None:
        torch.manual_seed(int(seed))
    try:
        with torch.no_grad():
            result = call(model, inputs)
    except BaseException as error:
        raise user_error(error, path, request["shown"], "the forward raised") from error
    leaves = named_leaves(result, lambda item: isinstance(item, torch.Tensor))
    found = dict(leaves)
    found |= _updated(model, before, set(request["updated"]) - set(found), frozenset(found))
    save_file(
        {name: tensor.detach().clone().contiguous() for name, tensor in found.items()},
        request["outputs"],
    )


def _updated(
    model: Any, before: Mapping[str, Any], wanted: set[str], taken: frozenset[str]
) -> dict[str, Any]:
    """The model's tensors that are wanted, and its buffers that are not what they were.

    A tensor that the model has under several names goes by the one that the plan gave it. `taken`
    are the names of what forward returned.
    """
    import torch

    from genie.graph.outputs import update_name

    def changed(name: str, tensor: Any) -> bool:
        old = before.get(name, tensor)
        return old is not tensor and (
            old.dtype != tensor.dtype or not torch.allclose(old, tensor, 0, 0, equal_nan=True)
        )

    own: dict[int, tuple[Any, list[str]]] = {}
    for name, tensor in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        own.setdefault(id(tensor), (tensor, []))[1].append(name)
    found = {}
    for tensor, names in own.values():
        outputs = [update_name(name, taken) for name in names]
        chosen = [name for name in outputs if name in wanted]
        if not chosen and any(changed(name, tensor) for name in names):
            chosen = outputs[:1]
        found.update(dict.fromkeys(chosen, tensor))
    return found


def call(model: Any, inputs: Mapping[str, Any]) -> Any:
    """Call forward with inputs by name, positional-only parameters by position."""
    import inspect

    parameters = inspect.signature(model.forward).parameters
    first = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY and n in inputs]
    rest = {name: value for name, value in inputs.items() if name not in first}
    return model(*(inputs[name] for name in first), **rest)


if __name__ == "__main__":
    sys.exit(main())
