"""One case on its whole way: built, run eagerly, compiled, parsed strictly, verified, executed."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genie.client import Session, connect
from genie.client.tensors import Tensor as Bits
from genie.graph.outputs import update_name
from genie.plan.store import write
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.names import clean
from tests.capture.compiling import compile_module, spec_of
from tests.capture.reference import same_bits
from tests.compat.inputs import BATCH, Family, Input, candidates, example
from tests.compat.small import STYLES

STAGES = ("builds", "runs", "captured", "executed", "equal")
"""What a case can reach, in order; the last is success."""

EXACT, CLOSE = "same bits", "1e-5"


@dataclass(frozen=True)
class Outcome:
    """What became of a case. `stage` is the last of `STAGES` that it reached, "" for none."""

    name: str
    group: str
    stage: str
    parameters: int = 0
    inputs: tuple[str, ...] = ()
    batch: str = ""
    """"any" when one plan served two batch sizes, "fixed" when it was compiled for one."""
    match: str = ""
    """EXACT or CLOSE."""
    code: str = ""
    reason: str = ""

    @property
    def works(self) -> bool:
        return self.stage == STAGES[-1]


class Different(Exception):
    """The plan's result is not eager's."""


def attempt_model(
    name: str,
    group: str,
    model: nn.Module,
    inputs: Mapping[str, Input],
    session: Session,
    parameters: int = 0,
) -> Outcome:
    """Compile `model` for any batch, else for a batch of two, and compare with eager."""
    reached = Outcome(name, group, "runs", parameters, tuple(inputs))
    dynamic = any(BATCH in item["shape"] for item in inputs.values())
    fixed = {n: {**item, "shape": [2 if s == BATCH else s for s in item["shape"]]}
             for n, item in inputs.items()}  # fmt: skip
    plans: list[tuple[str, Mapping[str, Input], Sequence[int]]] = [("fixed", fixed, (2,))]
    if dynamic:
        plans.insert(0, ("any", inputs, (1, 3)))
    first: Outcome | None = None
    for batch, given, sizes in plans:
        found = _attempt(dataclasses.replace(reached, batch=batch), model, given, sizes, session)
        if found.works:
            return found
        if first is None or STAGES.index(found.stage) > STAGES.index(first.stage):
            first = found
    assert first is not None
    return dataclasses.replace(first, batch="")


def _attempt(
    reached: Outcome,
    model: nn.Module,
    inputs: Mapping[str, Input],
    sizes: Sequence[int],
    session: Session,
) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="genie-compat-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                spec = spec_of(dict(inputs), {BATCH: (1, 4)} if len(sizes) > 1 else None)
                compiled = compile_module(model, spec, folder)
            except (GenieError, GenieErrors) as error:
                return _failed(reached, error)
            reached = dataclasses.replace(reached, stage="captured")
            constants = next(folder.glob("*.safetensors"))
            file = write(compiled.plan, constants, folder / "plan" / "net.plan.json").plan
            try:
                plan = session.install(file)
                match = EXACT
                for size in sizes:
                    given = example(dict(inputs), size, size)
                    found = session.run({n: _array(t) for n, t in given.items()}, plan=plan)
                    reached = dataclasses.replace(reached, stage="executed")
                    expected = {clean(k): v for k, v in eager(model, given).items()}
                    match = max(match, compare(found.tensors, expected), key=(EXACT, CLOSE).index)
            except (GenieError, GenieErrors) as error:
                return _failed(reached, error)
            except Different as error:
                return dataclasses.replace(reached, reason=str(error))
        return dataclasses.replace(reached, stage="equal", match=match)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _failed(reached: Outcome, error: GenieError | GenieErrors) -> Outcome:
    one = error.errors[0] if isinstance(error, GenieErrors) else error
    reason = one.message + (f": {one.cause}" if one.cause else "")
    return dataclasses.replace(reached, code=one.code, reason=" ".join(reason.split())[:200])


def eager(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own result on copies of the inputs, and the buffers that it changed.

    The model itself stays as it was: each run of a plan starts from the same values.
    """
    model.requires_grad_(False)
    torch.backends.mha.set_fastpath_enabled(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        found: dict[str, Tensor] = model(**{n: t.clone() for n, t in inputs.items()})
    found = {name: tensor.clone() for name, tensor in found.items()}
    after = model.state_dict()
    changed = [n for n, t in before.items() if not same_bits(t, after[n])]
    found |= {update_name(name): after[name].clone() for name in changed}
    model.load_state_dict(before)
    return found


def _array(tensor: Tensor) -> Any:
    plain = tensor.contiguous()
    if plain.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        wide = torch.uint16 if plain.element_size() == 2 else torch.uint8
        return Bits(str(plain.dtype).removeprefix("torch."), plain.view(wide).numpy())
    return plain.numpy()


def compare(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> str:
    """EXACT or CLOSE; Different when an output differs by more than 1e-5, relative to eager's."""
    if set(found) != set(expected):
        raise Different(f"the plan returns {sorted(found)}, eager {sorted(expected)}")
    match = EXACT
    for name, wanted in expected.items():
        bits = _array(wanted)
        theirs = bits.array if isinstance(bits, Bits) else bits
        ours = found[name].array
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            raise Different(f"{name}: {ours.dtype}{ours.shape}, eager {theirs.dtype}{theirs.shape}")
        if np.ascontiguousarray(ours).tobytes() == np.ascontiguousarray(theirs).tobytes():
            continue
        if not np.allclose(ours, theirs, rtol=1e-5, atol=1e-5, equal_nan=True):
            gap = float(np.nanmax(np.abs(ours.astype(np.complex128) - theirs)))
            raise Different(f"{name} differs from eager by up to {gap:.1e}")
        match = CLOSE
    return match


def attempt_family(name: str, session: Session) -> Outcome:
    """A family of transformers under its small configuration."""
    worst: Outcome | None = None
    for style in STYLES:
        found = _family(name, style, session)
        if found.stage not in ("", "builds"):
            return found
        if worst is None or (found.stage and not worst.stage):
            worst = found
    assert worst is not None
    return worst


def _family(name: str, style: Mapping[str, int], session: Session) -> Outcome:
    from tests.compat.families import TooLarge, build, group_of

    try:
        model, config = build(name, style)
    except TooLarge as error:
        return Outcome(name, "", "", reason=str(error))
    except Exception as error:
        return Outcome(name, "", "", reason=_told(error))
    parameters = sum(p.numel() for p in model.parameters())
    family = Family(model).eval()
    failure = "no usual combination of inputs fits its forward"
    for inputs in candidates(model, config):
        try:
            found = eager(family, example(inputs, 2))
        except Exception as error:
            failure = f"{', '.join(inputs)}: {_told(error)}"
            continue
        if found:
            return attempt_model(name, group_of(inputs), family, inputs, session, parameters)
    return Outcome(name, "", "builds", parameters, reason=failure)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]


def session() -> Session:
    """The runtime embedded in this process, with one thread as the models have."""
    torch.set_num_threads(1)
    return connect()
