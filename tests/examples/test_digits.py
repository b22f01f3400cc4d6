"""The trained example: its files, its accuracy, its training and its scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from plans.digits import accuracy, evaluate, train

FOLDER = Path(__file__).resolve().parents[2] / "plans" / "digits"


def test_the_committed_weights_reach_97_percent() -> None:
    result = evaluate.evaluate()
    assert result.total == 360
    assert result.percent >= 97.0


def test_the_committed_files_are_small_and_hold_what_the_spec_says() -> None:
    assert (FOLDER / "digits.safetensors").stat().st_size <= 300_000
    image = load_file(FOLDER / "heldout.safetensors")["image"]
    label = load_file(FOLDER / "labels.safetensors")["label"]
    assert image.dtype == np.float32
    assert image.shape == (360, 1, 8, 8)
    assert label.dtype == np.int64
    assert set(label) == set(range(10))
    assert image.min() == 0.0
    assert image.max() == 1.0


def test_held_out_images_are_the_split_and_were_not_trained_on() -> None:
    images, labels, held_images, held_labels = train.split()
    assert np.array_equal(held_images, load_file(FOLDER / "heldout.safetensors")["image"])
    assert np.array_equal(held_labels, load_file(FOLDER / "labels.safetensors")["label"])
    assert len(images) == len(labels) == 1797 - 360
    trained_on = {image.tobytes() for image in images}
    assert not any(image.tobytes() in trained_on for image in held_images)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_training_is_deterministic_and_learns() -> None:
    images, labels, held_images, held_labels = train.split()
    one, other = (train.train(images, labels, epochs=2) for _ in range(2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    with torch.no_grad():
        logits = one(torch.from_numpy(held_images)).numpy()
    assert accuracy.accuracy(logits, held_labels).percent > 80


def test_shifting_moves_each_image_by_at_most_a_pixel() -> None:
    image = np.zeros((200, 1, 8, 8), np.float32)
    image[:, 0, 3, 4] = 1
    moved = train.shifted(image, np.random.default_rng(0))
    assert moved.shape == image.shape
    assert moved.dtype == np.float32
    places = {tuple(p) for p in np.argwhere(moved[:, 0])[:, 1:]}
    assert places == {(r, c) for r in (2, 3, 4) for c in (3, 4, 5)}
    image[:, 0, 3, 4], image[:, 0, 0, 0] = 0, 1
    assert set(train.shifted(image, np.random.default_rng(0)).sum(axis=(1, 2, 3))) == {0.0, 1.0}


def write_outputs(folder: Path, wrong: int) -> Path:
    labels = load_file(FOLDER / "labels.safetensors")["label"]
    logits = np.eye(10, dtype=np.float32)[labels]
    logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
    save_file({"output": logits}, folder / "outputs.safetensors")
    return folder / "outputs.safetensors"


def test_accuracy_reads_what_execute_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert accuracy.main([str(write_outputs(tmp_path, wrong=9))]) == 0
    assert capsys.readouterr().out == "accuracy through the plan: 97.5 % (351 of 360)\n"
    assert accuracy.main([str(write_outputs(tmp_path, 0)), "--title", "two daemons"]) == 0
    assert capsys.readouterr().out == "two daemons: 100.0 % (360 of 360)\n"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": np.zeros((359, 10), np.float32)}, "logits [359, 10] do not fit labels [360]"),
        ({"a": np.zeros(360, np.float32)}, "logits [360] do not fit labels [360]"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "holds 2 tensors, expected one"),
        (None, "outputs.safetensors"),
    ],
)
def test_accuracy_refuses_other_files(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tensors: dict[str, np.ndarray] | None,
    message: str,
) -> None:
    path = tmp_path / "outputs.safetensors"
    if tensors is not None:
        save_file(tensors, path)
    assert accuracy.main([str(path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_accuracy_refuses_a_file_that_is_no_safetensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "outputs.safetensors"
    path.write_bytes(b"\xff" * 64)
    assert accuracy.main([str(path)]) == 2
    assert "accuracy.py:" in capsys.readouterr().err
