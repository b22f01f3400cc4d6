"""The generator that a drawing program is lent."""

from __future__ import annotations

import threading

import pytest
import torch

from genie_runtime.executors import drawing, slots
from genie_runtime.executors.drawing import Stream
from genie_schemas.errors import GenieError
from genie_schemas.plan import Program

CPU = torch.device("cpu")


def drawn(stream: Stream, seed: int = 1, salt: str = "") -> torch.Tensor:
    with stream.drawing(torch.tensor(seed), "main", salt, 10.0):
        return torch.rand(4)


def test_a_stream_goes_on_where_it_stopped() -> None:
    stream = Stream(CPU)
    parts = torch.cat([drawn(stream), drawn(stream)])
    torch.manual_seed(1)
    assert torch.equal(parts, torch.cat([torch.rand(4), torch.rand(4)]))


def test_a_failed_program_moves_nothing() -> None:
    stream, other = Stream(CPU), Stream(CPU)
    drawn(other)
    drawn(stream)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with (
        pytest.raises(RuntimeError, match="broken"),
        stream.drawing(torch.tensor(1), "main", "", 10.0),
    ):
        torch.rand(3)
        raise RuntimeError("broken")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn(stream), drawn(other))


def test_every_seed_and_device_has_a_stream_of_its_own() -> None:
    streams = [
        drawn(Stream(CPU), seed, salt) for seed in (-(2**63), 1, 2**63 - 1) for salt in ("", "d1")
    ]
    assert len({tuple(s.tolist()) for s in streams}) == 6


def test_waiting_for_the_generator_ends() -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with Stream(CPU).drawing(torch.tensor(1), "other", "", 10.0):
            held.set()
            let_go.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(30)
        with (
            pytest.raises(GenieError) as caught,
            Stream(CPU).drawing(torch.tensor(1), "main", "", 0.05),
        ):
            pytest.fail("two streams hold one generator")
    finally:
        let_go.set()
        holder.join(30)
    assert caught.value.code == "GEN0464"
    assert not drawing._LENT.locked()


@pytest.mark.parametrize("seed", [{"v": "nowhere"}, {"v": "y"}, 3, {"q": "x"}])
def test_a_program_with_a_bad_seed_is_refused(seed: object) -> None:
    program = Program.model_validate(
        {
            "inputs": [{"name": "x", "type": "f32[4]"}],
            "outputs": [{"name": "y", "type": "f32[4]"}],
            "scratch_bytes": "16",
            "ops": [
                {
                    "out": ["y"],
                    "op": "aten.rand_like.default",
                    "args": [{"v": "x"}],
                    "kwargs": {"rng": seed},
                }
            ],
        }
    )
    with pytest.raises(GenieError) as caught:
        slots.compile_program(program, CPU)
    assert caught.value.code == "GEN0458"
