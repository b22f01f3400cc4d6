"""Sample inputs: right names, dtypes, shapes and ranges, and the same bits every time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from genie.testing.inputs import sample_inputs
from genie_schemas.spec import Spec
from plans import sample_inputs as script

BERT = Path(__file__).resolve().parents[2] / "plans" / "bert" / "bert.yaml"


def spec(**inputs: dict[str, object]) -> Spec:
    dims = {"batch": {"min": 1, "max": 8, "example": 2}, "seq": {"min": 1, "max": 100}}
    used = {e for declared in inputs.values() for e in declared["shape"]}  # type: ignore[attr-defined]
    dims = {name: dim for name, dim in dims.items() if name in used}
    return Spec.model_validate(
        {"genie": 1, "name": "s", "model": {}, "inputs": inputs, "dims": dims}
    )


IDS: dict[str, object] = {"dtype": "int64", "shape": ["batch", "seq"], "low": 3, "high": 7}
MASK: dict[str, object] = {"dtype": "int64", "shape": ["batch", "seq"]}


@given(batch=st.integers(1, 8), seq=st.integers(1, 100), seed=st.integers(0, 2**32))
def test_integers_stay_in_range_and_masks_keep_one_position(
    batch: int, seq: int, seed: int
) -> None:
    drawn = sample_inputs(spec(ids=IDS, a_mask=MASK), {"batch": batch, "seq": seq}, seed=seed)
    ids, mask = drawn["ids"], drawn["a_mask"]
    assert ids.dtype == np.int64
    assert ids.shape == mask.shape == (batch, seq)
    assert ids.min() >= 3
    assert ids.max() < 7
    assert (mask[:, 0] == 1).all()
    assert (np.diff(mask, axis=1) <= 0).all()


def test_every_integer_of_the_range_is_drawn_and_masks_differ_between_rows() -> None:
    drawn = sample_inputs(spec(ids=IDS, a_mask=MASK), {"batch": 8, "seq": 100})
    assert set(drawn["ids"].flat) == {3, 4, 5, 6}
    assert len(set(drawn["a_mask"].sum(axis=1))) > 1


def test_dtypes_and_fixed_shapes() -> None:
    drawn = sample_inputs(
        spec(
            image={"dtype": "float16", "shape": ["batch", 3]},
            flag={"dtype": "bool", "shape": [64]},
            scalar={"dtype": "float64", "shape": []},
        )
    )
    assert drawn["image"].dtype == np.float16
    assert drawn["image"].shape == (2, 3)
    assert drawn["flag"].dtype == bool
    assert set(drawn["flag"]) == {False, True}
    assert drawn["scalar"].dtype == np.float64
    assert drawn["scalar"].shape == ()
    assert np.abs(drawn["image"]).max() <= 1


def test_bits_are_pinned_and_depend_on_the_seed() -> None:
    one = spec(ids=IDS, image={"dtype": "float32", "shape": ["batch", 5]})
    drawn = sample_inputs(one)
    digest = hashlib.sha256(drawn["ids"].tobytes() + drawn["image"].tobytes()).hexdigest()
    assert digest == "66dde1cf713120f91e8583111667ed2b81d3f08670cf4dacc114d01f110c7cbb"
    assert not np.array_equal(sample_inputs(one, seed=1)["image"], drawn["image"])


def test_bad_dimensions_and_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="no dimension 'bacth'"):
        sample_inputs(spec(ids=IDS), {"bacth": 2})
    with pytest.raises(ValueError, match=r"batch=9 is outside 1\.\.8"):
        sample_inputs(spec(ids=IDS), {"batch": 9})
    with pytest.raises(ValueError, match="input x: numpy has no bfloat16"):
        sample_inputs(spec(x={"dtype": "bfloat16", "shape": ["batch", "seq"]}))


def test_the_script_writes_what_the_spec_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inputs.safetensors"
    assert script.main([str(BERT), "-o", str(out), "--dim", "batch=3", "--dim", "seq=7"]) == 0
    assert capsys.readouterr().out == "input_ids: int64[3, 7]\nattention_mask: int64[3, 7]\n"
    written = load_file(out)
    assert set(written) == {"input_ids", "attention_mask"}
    assert written["input_ids"].shape == (3, 7)
    assert written["input_ids"].max() < 30522


def test_the_script_refuses_bad_dimensions_and_missing_specs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inputs.safetensors"
    assert script.main([str(BERT), "-o", str(out), "--dim", "batch=99"]) == 2
    assert "batch=99 is outside 1..8" in capsys.readouterr().err
    assert script.main([str(tmp_path / "none.yaml"), "-o", str(out)]) == 4
    assert "GEN0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        script.main([str(BERT), "-o", str(out), "--dim", "batch"])
    assert not out.exists()
