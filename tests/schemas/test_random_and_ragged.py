"""What the verifier holds plans to that draw random numbers, or whose sizes data decides."""

from __future__ import annotations

from typing import Any

import pytest

from genie_schemas.errors import GenieErrors
from genie_schemas.verify import verify
from tests.runtime.executors.planning import Book, op, r

SEEDED: dict[str, Any] = {"requires": ["compute.aten", "rng"]}


def drawing(
    *calls: Any, inputs: str = "x: f32[4]; seed: i64[]", outputs: str = "y: f32[4]"
) -> Book:
    """A plan of one program with these calls; its inputs are those of the plan."""
    book = Book("drawing")
    book.inputs = [(*part.split(": "), "d0") for part in inputs.split("; ")]  # type: ignore[misc]
    book.program("p", inputs, outputs, "64", *calls)
    names = [part.split(": ")[0] for part in outputs.split("; ")]
    book.compute("main", "p", " ".join(n for n, _, _ in book.inputs), " ".join(names))
    for name in names:
        book.step(f"{name}/return", "return", name)
    book.outputs = names
    return book


def dropout(out: str = "y", **more: Any) -> Any:
    return op(out, "dropout.default", r("x"), {"f": "0x1.0000000000000p-1"}, True, **more)


def code_of(book: Book, **changes: Any) -> str:
    plan = book.plan(check=False, **changes)
    with pytest.raises(GenieErrors) as caught:
        verify(plan)
    return caught.value.errors[0].code


def test_a_call_that_draws_names_its_seed() -> None:
    drawing(dropout(rng=r("seed"))).plan(**SEEDED)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (dropout(), "GEN0306"),
        (dropout(rng=r("x")), "GEN0307"),
        (dropout(rng=r("nowhere")), "GEN0307"),
        (dropout(rng=7), "GEN0307"),
        (dropout(rng=[r("seed")]), "GEN0307"),
        (dropout(rng={"v": 3}), "GEN0307"),
        (op("y", "relu.default", r("x"), rng=r("seed")), "GEN0307"),
    ],
    ids=["none", "float", "undefined", "number", "list", "untagged", "of what does not draw"],
)
def test_a_bad_seed_is_refused(call: Any, code: str) -> None:
    assert code_of(drawing(call), **SEEDED) == code


def test_a_program_has_one_seed() -> None:
    second = op("z", "rand_like.default", r("x"), rng=r("other"))
    book = drawing(
        dropout(rng=r("seed")),
        second,
        inputs="x: f32[4]; seed: i64[]; other: i64[]",
        outputs="y: f32[4]; z: f32[4]",
    )
    assert code_of(book, **SEEDED) == "GEN0307"


def test_a_seed_is_no_value_that_the_program_computes() -> None:
    made = op("seed.2", "add.Tensor", r("seed"), 1)
    assert code_of(drawing(made, dropout(rng=r("seed.2"))), **SEEDED) == "GEN0307"


def test_drawing_must_be_required() -> None:
    assert code_of(drawing(dropout(rng=r("seed")))) == "GEN0325"


RAGGED: dict[str, Any] = {"requires": ["compute.aten", "outputs.ragged"]}


def with_sizes(sizes: str) -> Book:
    return drawing(
        op("y", "relu.default", r("x")),
        op("y.sizes", "add.Tensor", r("n"), 1),
        inputs=f"x: f32[4]; n: {sizes}",
        outputs=f"y: f32[4]; y.sizes: {sizes}",
    )


def test_sizes_are_one_integer_a_dimension() -> None:
    with_sizes("i64[1]").plan(**RAGGED)
    for sizes in ("i64[2]", "i64[]", "i32[1]", "f32[1]"):
        assert code_of(with_sizes(sizes), **RAGGED) == "GEN0320"


def test_names_mean_nothing_where_the_feature_is_not_required() -> None:
    with_sizes("f32[3]").plan()
