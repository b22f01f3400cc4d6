"""The device as torch knows it: names, generators, memory that is not here, synchronisation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import genie.lazy
from genie.lazy._setup import recorder
from genie_schemas.errors import GenieError


def test_torch_knows_the_device() -> None:
    assert torch.device("genie").type == "genie"
    assert torch.accelerator.current_accelerator() == torch.device("genie")
    assert torch.accelerator.device_count() == 1
    torch.accelerator.synchronize()
    assert torch.ones(2, device="genie").device == torch.device("genie:0")


def test_the_client_holds_no_bytes_of_what_is_there() -> None:
    weight = torch.randn(256, 256)
    there = weight.to("genie")
    storage = there.untyped_storage()
    assert storage.data_ptr() == there.data_ptr() == 0
    assert storage.nbytes() == weight.nbytes  # as many as the device holds
    assert recorder().client_bytes(there) == 0
    made = there @ there
    assert made.untyped_storage().data_ptr() == 0
    kept = genie.lazy._setup.runner().session().links[0].status()
    assert torch.equal(there.cpu(), weight)
    assert sum(d["constant_bytes"] for d in kept["devices"]) >= weight.nbytes


def test_what_nobody_refers_to_leaves_the_device() -> None:
    def held() -> int:
        status = genie.lazy._setup.runner().session().links[0].status()
        return sum(int(d["constant_bytes"]) for d in status["devices"])

    probe = torch.ones(2000).to("genie")
    before = held()
    large = torch.ones(1 << 20).to("genie")
    assert held() >= before + large.nbytes
    del large
    assert (probe + 1).sum().item() == 4000  # the next run takes along what is to be dropped
    assert held() <= before + 4096


def test_weights_travel_once() -> None:
    model = nn.Linear(512, 512).to("genie")
    x = torch.ones(1, 512).to("genie")
    genie.lazy.reset_stats()
    for _ in range(4):  # the small bias travels with the first run and stays from then on
        model(x).sum().item()
    found = genie.lazy.stats()
    assert found["uploads"] == 0
    assert found["graph_cache_hits"] == 2


def test_the_same_seed_draws_the_same_numbers_as_on_a_cpu() -> None:
    for draw in (torch.randn, torch.rand):
        torch.manual_seed(5)
        wanted = draw(4, 5)
        torch.manual_seed(5)
        assert torch.equal(draw(4, 5, device="genie").cpu(), wanted)
    torch.manual_seed(6)
    state = torch.genie.get_rng_state()  # type: ignore[attr-defined]
    first = torch.randn(3, device="genie").cpu()
    torch.genie.set_rng_state(state)  # type: ignore[attr-defined]
    assert torch.equal(torch.randn(3, device="genie").cpu(), first)
    own = torch.Generator("cpu").manual_seed(9)
    wanted = torch.empty(3).normal_(generator=torch.Generator("cpu").manual_seed(9))
    assert torch.equal(torch.empty(3, device="genie").normal_(generator=own).cpu(), wanted)


def test_dropout_keeps_the_share_that_it_should_and_scales() -> None:
    torch.manual_seed(7)
    kept = nn.functional.dropout(torch.ones(4000, device="genie"), 0.25).cpu()
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert 0.7 < kept.count_nonzero().item() / 4000 < 0.8
    assert genie.lazy.stats()["host_fallbacks"] == 0


def test_looking_at_a_value_is_counted_with_the_line_that_did_it() -> None:
    x = torch.ones(3000).to("genie")
    if (x * 2).sum() > 5:
        x = x + 1
    assert "tensor(" in str((x * 3).max())
    points = genie.lazy.stats()["sync_points"]
    assert points, "nothing was counted"
    assert all(point["line"].startswith(__file__) for point in points), points
    assert __file__ in genie.lazy.explain()


def test_small_tensors_that_nothing_remote_has_a_part_in_need_no_run() -> None:
    mask = torch.ones(2, 8, dtype=torch.bool, device="genie")
    assert bool(mask.all())
    positions = torch.arange(6, device="genie")
    assert positions[-1].item() == 5
    found = genie.lazy.stats()
    assert found["graphs_run"] == 0
    assert found["synchronisations"] == 0
    assert found["host_evaluations"] == 2


def test_results_of_unknown_size_come_from_the_host_with_a_reason() -> None:
    x = torch.tensor([0.0, 3.0, 0.0, 4.0]).to("genie")
    found = x.nonzero()
    assert found.device.type == "genie"
    assert found.flatten().tolist() == [1, 3]
    assert x[x > 3].tolist() == [4.0]
    fallbacks = {entry["op"]: entry["why"] for entry in genie.lazy.stats()["fallbacks"]}
    assert "aten.nonzero.default" in fallbacks
    assert "aten.nonzero.default ran on the host" in genie.lazy.explain()


def test_what_nobody_keeps_is_never_computed() -> None:
    x = torch.ones(3000).to("genie")
    genie.lazy.synchronize()
    genie.lazy.reset_stats()
    for _ in range(10):
        x * 2
    genie.lazy.synchronize()
    assert genie.lazy.stats()["graphs_run"] == 0


def test_operators_know_the_module_that_they_belong_to() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).to("genie")
    with torch.no_grad():
        net(torch.ones(64, 64).to("genie")).sum().item()
    plan, _, _ = genie.lazy._setup.runner().last()
    names = [op.out[0] for p in plan.loaded.installed.plan.programs.values() for op in p.ops]
    assert "0.linear" in names
    assert "1.relu" in names


def test_errors_of_the_program_are_torchs_own() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        torch.ones(2, 3, device="genie") @ torch.ones(4, 5, device="genie")
    with pytest.raises(RuntimeError, match="must match the size of tensor"):
        torch.ones(3, device="genie").copy_(torch.ones(4, device="genie"))


def test_an_operator_that_fails_there_names_the_line_that_waited_for_it() -> None:
    values = torch.arange(3000.0).to("genie")
    chosen = values[torch.tensor([5000]).to("genie")]
    with pytest.raises(GenieError) as caught:
        chosen.sum().item()
    assert caught.value.code == "GEN0460"
    assert f"the program waited at {__file__}" in str(caught.value.cause)
    with pytest.raises(RuntimeError, match="GEN0260"):
        (chosen + 1).sum().item()
    assert values.sum().item() == sum(range(3000))  # what was there before is still there


def test_tracing_takes_no_notice_of_the_device() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda v: self.inner(v), lambda v: v * 2, (x,))

    with torch.no_grad():
        program = torch.export.export(Loop(), (torch.ones(2, 4),), strict=False)
    assert [str(n.target) for n in program.graph.nodes if "cond" in str(n.target)]
    genie.lazy.reset_stats()
    net = nn.Sequential(nn.Linear(64, 64)).to("genie")
    with torch.no_grad():
        net(torch.ones(64, 64).to("genie")).sum().item()
    plan, _, _ = genie.lazy._setup.runner().last()
    names = [op.out[0] for p in plan.loaded.installed.plan.programs.values() for op in p.ops]
    assert "0.linear" in names
