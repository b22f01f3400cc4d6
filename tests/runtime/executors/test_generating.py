"""The generation loop on executors: greedy and drawn, on one device and a ring, and its ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_runtime.ports import Generation
from tests import tiny_lm
from tests.runtime.executors.conftest import MakeExecutor
from tests.runtime.executors.generating import Ring, Station, generate
from tests.tiny_lm import greedy, padded

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [[5, 9, 1, 33], [7], [2, 2, 60, 8, 41, 3]]
WEIGHTS = tiny_lm.weights()


@pytest.fixture(params=[1, 2], ids=["one", "ring"])
def devices(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
def opened(make_executor: MakeExecutor, tmp_path: Path, devices: int) -> Iterator[Opened]:
    made = Opened(make_executor, tmp_path, devices)
    yield made
    for station in made.stations:
        station.pool.close()


class Opened:
    """Stations with the model on one device or on two, with ends of sequence if given."""

    def __init__(self, make: MakeExecutor, folder: Path, devices: int) -> None:
        self._make, self._folder, self._devices = make, folder, devices
        self.stations: list[Station] = []

    def model(self, *eos: int) -> list[Station]:
        made = tiny_lm.tiny_lm(self._folder, devices=self._devices, eos=eos)
        names = sorted(made.plan.devices)
        found = [Station(self._make(name=name), made, name) for name in names]
        self.stations += found
        return found


def ends(ring: Ring) -> list[type]:
    return [type(end) for end in ring.wait().values()]


def test_greedy_generation_equals_full_forwards(opened: Opened) -> None:
    ring = generate(opened.model(), padded(PROMPTS), Generation(24))
    assert ring.tokens() == [greedy(WEIGHTS, prompt, 24) for prompt in PROMPTS]
