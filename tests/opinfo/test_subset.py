"""A part of the sweep of each kind of operator, through every path; `make opinfo` runs it all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.opinfo.comparing import different, inexact
from tests.opinfo.kernels import KERNELS
from tests.opinfo.report import page, share
from tests.opinfo.samples import cases, database, name_of
from tests.opinfo.sweep import DTYPES, PATHS, Outcome, Path, attempt, make

SUBSET = """
__getitem__ abs add addmm allclose amax arange argwhere as_strided baddbmm bernoulli broadcast_to
bucketize cat chunk clamp complex corrcoef cumsum diag_embed dist einsum empty_like expand fft_fft
fft_irfftn fill flip gather index_add index_put item kthvalue linalg_eigh linalg_lstsq linalg_qr
logsumexp lu_solve masked_select max_binary meshgrid_list_of_tensors mode multinomial
native_layer_norm nn_functional_batch_norm nn_functional_conv2d nn_functional_conv_transpose1d
nn_functional_cross_entropy nn_functional_ctc_loss nn_functional_dropout nn_functional_embedding_bag
nn_functional_fractional_max_pool2d nn_functional_gelu nn_functional_grid_sample
nn_functional_group_norm nn_functional_interpolate_bilinear nn_functional_max_pool2d
nn_functional_pad_reflect nn_functional_scaled_dot_product_attention nn_functional_unfold nonzero
normal polar put quantile rand_like repeat_interleave roll scatter_add searchsorted softmax sort
special_bessel_j0 split stack std_mean stft sum take_along_dim tensordot tile topk torch__scaled_mm
trace tril_indices unique view_as_complex where zeros_like
""".split()


@pytest.fixture(scope="module")
def infos() -> dict[str, Any]:
    return {name_of(info): info for info in database()}


@pytest.fixture(scope="module", params=list(PATHS))
def path(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    before, threads = logging.root.manager.disable, torch.get_num_threads()
    logging.disable(logging.CRITICAL)  # torch logs what it cannot trace before it raises
    with make(request.param) as runner:
        yield request.param, runner
    logging.disable(before)
    torch.set_num_threads(threads)


LISTED = [
    (name, dtype, op)
    for name, dtypes in KERNELS.items()
    for dtype, ops in dtypes.items()
    for op in ops
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype", "op"), LISTED)
def test_what_is_listed_has_other_bits(
    name: str, dtype: str, op: str, infos: dict[str, Any]
) -> None:
    threads = torch.get_num_threads()
    try:
        with make(name) as runner:
            found = attempt(infos[op], dtype, name, runner)
    finally:
        torch.set_num_threads(threads)
    assert found.holds, found.reason
    assert found.bits == "close", "its bits are eager's: take it off the list"


@pytest.mark.slow
@pytest.mark.parametrize("op", SUBSET)
def test_holds_against_eager(op: str, path: tuple[str, Path], infos: dict[str, Any]) -> None:
    name, runner = path
    found = attempt(infos[op], "float32", name, runner)
    assert found.usable, found.reason
    assert found.holds, found.reason
    assert found.samples > 0


def test_a_wrong_result_is_seen(infos: dict[str, Any]) -> None:
    case = next(cases(infos["add"], DTYPES["float32"]))
    (wanted,) = case.expected
    assert different(case.op, [wanted], case.expected) is None
    for wrong in (wanted + 1e-3, wanted.double(), wanted.unsqueeze(0), "3", wanted * float("nan")):
        assert different(case.op, [wrong], case.expected) is not None
    assert different(case.op, [], case.expected) is not None


def test_bits_are_compared_with_their_signs_and_without_the_kinds_of_nan() -> None:
    nan = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert inexact([nan[:1]], [nan[1:]]) is None
    zero = torch.zeros(3)
    assert inexact([zero], [zero.clone()]) is None
    assert inexact([-zero], [zero]) is not None
    assert inexact([-0.0], [0.0]) is not None
    one = torch.ones(2, dtype=torch.bfloat16)
    assert inexact([torch.nextafter(one, one + 1)], [one]) is not None
    turned = torch.complex(torch.ones(2), -zero[:2])
    assert inexact([turned], [turned.conj()]) is not None
    assert inexact([torch.tensor(2.5)], [2.5]) is None
    assert inexact([torch.tensor([2**53 + 1])], [torch.tensor([2**53])]) is not None


def test_a_result_with_other_bits_fails_where_eager_determines_them(infos: dict[str, Any]) -> None:
    class Rounded:
        """A path whose results are the next number."""

        counts = (0, 0)

        def __enter__(self) -> Rounded:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

        def run(self, case: Any) -> list[Any]:
            return [torch.nextafter(r, r + 1) for r in case.expected]

    found = attempt(infos["add"], "float32", "wrong", Rounded())
    assert found.reason is not None
    assert "the bits of" in found.reason


def test_an_operator_counts_only_when_all_its_samples_hold(infos: dict[str, Any]) -> None:
    class OneWrong:
        """A path that gives eager's results for the first sample alone."""

        counts = (0, 0)

        def __enter__(self) -> OneWrong:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

        def run(self, case: Any) -> list[Any]:
            return [r + case.index for r in case.expected]

    found = attempt(infos["add"], "float32", "wrong", OneWrong())
    assert not found.holds
    assert found.reason is not None
    assert found.reason.startswith("sample 1: result 0: ")
    good = Outcome("mul", "float32", "wrong", None, samples=3)
    left_out = Outcome("jiterator", "float32", "wrong", "no such dtype", usable=False)
    outcomes = [found, good, left_out]
    assert share(outcomes, "wrong") == "through wrong: 1 of 2 (50.0 %)"
    text = page(outcomes)
    assert "| `add` | sample 1" in text
    assert "| `jiterator` | no such dtype |" in text
