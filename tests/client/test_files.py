"""Arrays from files and to files: what is read is checked, what is written is whole."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie.client.files import load_array, load_inputs, save_tensors
from genie.client.tensors import Tensor
from genie_schemas.errors import GenieError

TENSORS = {
    "a": Tensor("float32", np.arange(6, dtype=np.float32).reshape(2, 3)),
    "b": Tensor("bfloat16", np.array([1, 2], np.uint16)),
    "c": Tensor("bool", np.array(True)),
    "d": Tensor("int64", np.zeros((0, 2), np.int64)),
    "e": Tensor("float8_e5m2", np.array([[7]], np.uint8)),
}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and np.array_equal(a[n].array, b[n].array) for n in a
    )


def test_safetensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS)
    assert equal(load_inputs(path), TENSORS)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    from safetensors.numpy import load_file

    plain = {n: t for n, t in TENSORS.items() if n in "acd"}
    save_tensors(path, plain)
    theirs = load_file(path)
    assert all(np.array_equal(theirs[n], t.array) for n, t in plain.items())


def test_npy_and_npz_come_back(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", first=array, second=array[:1])
    found = load_array(tmp_path / "x.npy")
    assert found.dtype == "float64"
    assert np.array_equal(found.array, array)
    assert sorted(load_inputs(tmp_path / "x.npz")) == ["first", "second"]
    with pytest.raises(GenieError) as caught:
        load_array(tmp_path / "x.npz")
    assert "holds 2 arrays" in (caught.value.cause or "")


class Evil:
    """Unpickling it would create a file."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("pwned"),))


def test_pickled_objects_are_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("object.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    np.savez("object.npz", x=np.array([Evil()], dtype=object))
    Path("pickle.npy").write_bytes(pickle.dumps(Evil()))
    for name in ("object.npy", "object.npz", "pickle.npy"):
        with pytest.raises(GenieError) as caught:
            (load_array if name.endswith("npy") else load_inputs)(Path(name))
        assert caught.value.code == "GEN0406"
    assert not Path("pwned").exists()


@pytest.mark.parametrize("name", ["none.npy", "none.npz", "none.safetensors", "x.txt", "x"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(GenieError) as caught:
        load_array(tmp_path / name)
    assert caught.value.code == "GEN0406"
    assert caught.value.exit_code == 2
    assert name in str(caught.value.place)


@given(st.binary(max_size=200), st.sampled_from([".npy", ".npz", ".safetensors"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("f") / f"x{suffix}"
    path.write_bytes(data)
    try:
        load_array(path)
    except GenieError as error:
        assert error.code == "GEN0406"


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    wide = {"x": Tensor("complex128", np.zeros(1, np.complex128))}
    for path, tensors in (
        (tmp_path / "none" / "x.safetensors", TENSORS),
        (tmp_path / "x.safetensors", wide),
    ):
        with pytest.raises(GenieError) as caught:
            save_tensors(path, tensors)
        assert caught.value.code == "GEN0408"
    assert not list(tmp_path.iterdir())
