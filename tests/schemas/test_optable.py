"""The operator table: it is torch's, and its exceptions are what torch really does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genie_schemas import optable

A = torch.ops.aten


def test_the_committed_table_is_that_of_the_pinned_torch() -> None:
    from genie.capture.optable import TABLE, dumps, generate

    if torch.__version__.split("+")[0] != optable.captured_torch():
        pytest.skip(f"the table is of torch {optable.captured_torch()}")
    assert TABLE.read_text("ascii") == dumps(generate())


def test_what_must_never_be_allowed() -> None:
    for name in (
        "aten.set_.source_Tensor",
        "aten.resize_.default",
        "aten.from_file.default",
        "aten.item.default",
        "aten._local_scalar_dense.default",
        "aten.record_stream.default",
        "aten.add.out",
        "aten.to_sparse.default",
        "aten.quantize_per_tensor.default",
        "prims.add.default",
    ):
        assert optable.lookup(name) is None, name


def test_near_misses_are_suggested() -> None:
    assert optable.similar("aten.conv2d.defualt")[0] == "aten.conv2d.default"
    assert optable.similar("zzzz") == []


def test_every_parameter_type_can_be_checked() -> None:
    from genie_schemas.verify.operators import _fits

    for name in optable.names():
        info = optable.lookup(name)
        assert info is not None
        for parameter in info.args:
            _fits(parameter.type, None)
            _fits(parameter.type, (None,))


def _shares(result: object, operand: Tensor) -> bool:
    results = result if isinstance(result, list | tuple) else [result]
    storage = operand.untyped_storage().data_ptr()
    return any(isinstance(r, Tensor) and r.untyped_storage().data_ptr() == storage for r in results)


X = torch.arange(9.0).reshape(3, 3)

ALIASES = {
    "atleast_1d": lambda: A.atleast_1d.default(X),
    "atleast_2d": lambda: A.atleast_2d.Sequence([X]),
    "atleast_3d": lambda: A.atleast_3d.default(X),
    "dropout": lambda: A.dropout.default(X, 0.5, False),
    "alpha_dropout": lambda: A.alpha_dropout.default(X, 0.5, False),
    "feature_dropout": lambda: A.feature_dropout.default(X, 0.5, False),
    "feature_alpha_dropout": lambda: A.feature_alpha_dropout.default(X, 0.5, False),
    "unsafe_chunk": lambda: A.unsafe_chunk.default(X, 2),
    "unsafe_split": lambda: A.unsafe_split.Tensor(X, 2),
    "unsafe_split_with_sizes": lambda: A.unsafe_split_with_sizes.default(X, [1, 2]),
    "_cast_Float": lambda: A._cast_Float.default(X),
    "_unsafe_view": lambda: A._unsafe_view.default(X, [9]),
    "broadcast_tensors": lambda: A.broadcast_tensors.default([X, X]),
    "cartesian_prod": lambda: A.cartesian_prod.default([X[0]]),
    "conj_physical": lambda: A.conj_physical.default(X),
    "einsum": lambda: A.einsum.default("ij->ji", [X]),
    "flatten_dense_tensors": lambda: A.flatten_dense_tensors.default([X]),
    "histogramdd": lambda: A.histogramdd.TensorList_bins(X, [X[0], X[0], X[0]])[1],
    "lift": lambda: A.lift.default(X),
    "meshgrid": lambda: A.meshgrid.indexing([X[0]], indexing="ij"),
    "sum_to_size": lambda: A.sum_to_size.default(X, [3, 3]),
    "type_as": lambda: A.type_as.default(X, X),
}


@pytest.mark.parametrize("name", ALIASES)
def test_results_share_memory_with_operands_as_the_table_says(name: str) -> None:
    assert _shares(ALIASES[name](), X)
    overloads = [n for n in optable.names() if n.split(".")[1] == name]
    assert overloads
    for overload in overloads:
        info = optable.lookup(overload)
        assert info is not None
        assert info.aliased(), overload


def test_the_table_of_hidden_aliases_has_no_other_entries() -> None:
    casts = {n for n in optable.HIDDEN_ALIASES if n.startswith("_cast_")}
    assert set(optable.HIDDEN_ALIASES) - casts == set(ALIASES) - {"_cast_Float"}
    for name in casts:
        dtype = {"Byte": "uint8", "Char": "int8", "Short": "int16", "Half": "float16"}
        kind = dtype.get(name[6:], name[6:].lower())
        x = torch.ones(2, dtype=getattr(torch, kind))
        assert _shares(getattr(A, name).default(x), x)


@pytest.mark.parametrize("name", optable.HIDDEN_MUTATIONS)
def test_hidden_mutations_really_happen(name: str) -> None:
    info = optable.lookup(name)
    assert info is not None
    flag, written = optable.HIDDEN_MUTATIONS[name]
    x = torch.randn(4, 3, 5)
    given: dict[str, object] = {"input": x, "self": x, "noise": torch.zeros_like(x)}
    given |= {"running_mean": torch.zeros(3), "running_var": torch.ones(3), flag: True}
    given |= {"momentum": 0.1, "eps": 1e-5, "cudnn_enabled": False}
    bound = {a.name: given.get(a.name) for a in info.args if a.name in given or not a.optional}
    before = {n: given[n].clone() for n in written}  # type: ignore[attr-defined]
    packet, overload = name.split(".")[1:]
    positional = [bound[a.name] for a in info.args if a.name in bound and not a.keyword_only]
    getattr(getattr(A, packet), overload)(*positional)
    assert all(not torch.equal(before[n], given[n]) for n in written)  # type: ignore[arg-type]
    assert info.mutated(bound) == written
    assert info.mutated({**bound, flag: False}) == ()


def draws(name: str, **bound: object) -> bool:
    info = optable.lookup(name)
    assert info is not None
    return info.draws(bound)


def test_whether_a_call_draws() -> None:
    assert draws("aten.rand.default")
    assert draws("aten.dropout.default", p=0.5, train=True)
    assert not draws("aten.dropout.default", p=0.5, train=False)
    assert not draws("aten.dropout.default", p=0.0, train=True)
    assert draws("aten.bernoulli.p", p=0.0)
    assert not draws("aten.scaled_dot_product_attention.default")
    assert draws("aten.scaled_dot_product_attention.default", dropout_p=0.1)
    assert not draws("aten.lstm.input", dropout=0.3, train=False)
    assert not draws("aten.add.Tensor")
