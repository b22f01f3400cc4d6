"""Inputs that share memory: by value where they are only read, refused where one is written to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from genie.cli.render import render_error
from genie.client import connect
from genie.client.aliases import check_apart, written_inputs
from genie.client.tensors import as_tensor
from genie.plan.store import write
from genie.testing.snapshots import golden_files
from genie_schemas.errors import GenieError
from genie_schemas.plan import ExecutionPlan
from tests.capture.compiling import compile_module, spec_of, with_forward
from tests.golden.support import GOLDEN

XY = {"x": ("float32", ["b", 4]), "y": ("float32", ["b", 4])}


def accumulate(self: Any, x: Any, y: Any) -> Any:
    x[:, 1:].add_(1)
    return x + y


def read_only(self: Any, x: Any, y: Any) -> Any:
    return x * 2 + y


def second(self: Any, x: Any, y: Any) -> Any:
    z = y.view(-1)
    z.mul_(2)
    return x + y


def branch(self: Any, x: Any, y: Any) -> Any:
    z = x.clone() if x.shape[1] > 9 else x + 0
    z.add_(1)
    return z + y


def plan_of(forward: Callable[..., Any], **more: Any) -> ExecutionPlan:
    return compile_module(with_forward(forward), spec_of(XY, **more)).plan


@pytest.mark.parametrize(
    ("forward", "names"),
    [(accumulate, {"x"}), (read_only, set()), (second, {"y"}), (branch, set())],
)
def test_a_plan_tells_which_inputs_it_writes_to(
    forward: Callable[..., Any], names: set[str]
) -> None:
    assert written_inputs(plan_of(forward), "forward") == names


def clash(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], written: set[str]) -> bool:
    """Whether the arrays, given as x and y, are refused."""
    try:
        given = {"x": as_tensor(one), "y": as_tensor(other)}
        check_apart(given, {}, lambda: frozenset(written))
    except GenieError as error:
        assert error.code == "GEN0409"
        assert error.place is not None
        assert error.place.file == __file__
        return True
    return False


def test_only_a_common_element_counts() -> None:
    base = np.arange(64, dtype=np.float32)
    assert clash(base, base, {"x"})
    assert clash(base, base[::-1], {"y"})
    assert clash(base[:40], base[39:], {"x", "y"})
    assert clash(base.reshape(8, 8), base.reshape(8, 8).T, {"x"})
    assert not clash(base, base, set())
    assert not clash(base[:40], base[40:], {"x"})
    assert not clash(base[::2], base[1::2], {"x"})
    assert not clash(base[:0], base, {"x"})
    assert not clash(base, base.copy(), {"x"})


def test_a_kept_tensor_given_twice_counts_as_well() -> None:
    kept = {"x": "0" * 32, "y": "0" * 32}
    check_apart({}, kept, lambda: frozenset())
    with pytest.raises(GenieError, match="GEN0409"):
        check_apart({}, kept, lambda: frozenset({"y"}))


def test_a_session_refuses_what_eager_execution_would_answer_otherwise(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    compiled = compile_module(with_forward(accumulate), spec_of(XY), tmp_path)
    constants = compiled.work.constants
    assert constants is not None
    plan = write(compiled.plan, constants, tmp_path / "p" / "x.plan.json").plan
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    with connect() as session:
        session.install(plan)
        apart = session.run({"x": array, "y": array.copy()}).outputs["output"]
        assert np.array_equal(apart, 2 * array + [0, 1, 1, 1])
        with pytest.raises(GenieError) as caught:
            session.run({"x": array, "y": array})
        assert np.array_equal(array.reshape(-1), np.arange(8))
    error = caught.value
    assert error.exit_code == 2
    assert error.place is not None
    assert "session.run" in Path(__file__).read_text().splitlines()[(error.place.line or 0) - 1]
    golden = snapshot.use_extension(golden_files(GOLDEN / "errors" / "run", "txt"))
    text = render_error(error, colour=False).replace(f"{__file__}:{error.place.line}", "serve.py:9")
    assert text + "\n" == golden(name="inputs-share-memory")
