"""What cannot be captured: the code, the user's line, and what to do about it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

import pytest

from genie.capture.capture import capture
from genie.capture.exporter import export
from genie.capture.locate import Locator
from genie.model.loader import load_model
from genie_schemas.errors import GenieError
from genie_schemas.spec import Spec
from tests.capture.compiling import spec_of

HEAD = "import math\nimport torch\nfrom torch import nn\n\n\n"


@dataclass(frozen=True)
class Refusal:
    """A forward (and what surrounds it) with the error that it must give.

    `line` is a piece of the source line that the error must point at; None when torch tells none.
    """

    code: str
    forward: str
    line: str | None = None
    says: str = ""
    init: str = "pass"
    before: str = ""
    build: str = "return M().eval()"


REFUSALS = {
    "dropout_in_training": Refusal(
        "GEN0225",
        "return self.drop(x)",
        "return self.drop(x)",
        "dropout",
        init="self.drop = nn.Dropout(0.5)",
        build="return M().train()",
    ),
    "random_numbers": Refusal("GEN0225", "y = x * 2\nreturn y + torch.rand_like(x)", "rand_like"),
    "drawing_by_chance": Refusal("GEN0225", "return torch.bernoulli(x.sigmoid())", "bernoulli"),
    "cache_outside_of_the_module": Refusal(
        "GEN0224",
        "self.cache.keys[0].copy_(x.sum(0))\nreturn x @ self.cache.keys",
        "self.cache.keys[0].copy_",
        "the constant",
        before="class Cache:\n    def __init__(self):\n        self.keys = torch.zeros(6, 6)\n",
        init="self.cache = Cache()",
    ),
    "state_in_an_attribute": Refusal(
        "GEN0224",
        "self.last = x * 2\nself.total = self.total + x.sum(0)\nreturn x + self.total",
        "self.total = self.total + x.sum(0)",
        "self.total",
        init="self.total = torch.zeros(6)\nself.last = None",
    ),
    "state_that_cannot_be_tried": Refusal(
        "GEN0224",
        "self.total = self.total + x.sum(0)\ntorch._check(self.steps() < 2)\nreturn x + self.total",
        None,
        "self.total",
        before="CALLS = []\n",
        init="self.total = torch.zeros(6)",
        build=("M.steps = lambda self: (CALLS.append(1), len(CALLS))[1]\nreturn M()"),
    ),
    "state_in_a_list_that_grows": Refusal(
        "GEN0224",
        "self.seen.append(x)\nreturn torch.cat(self.seen)",
        None,
        "self.seen",
        init="self.seen = []",
    ),
    "state_in_a_list": Refusal(
        "GEN0224",
        "self.seen['k'][0] = self.seen['k'][0] + x.sum(0)\nreturn x + self.seen['k'][0]",
        None,
        "self.seen['k'][0]",
        init="self.seen = {'k': [torch.zeros(6)]}",
    ),
    "data_dependent_if": Refusal(
        "GEN0220", "if x.sum() > 0:\n    return x\nreturn -x", "if x.sum() > 0:", "torch.where"
    ),
    "item": Refusal("GEN0220", "return x * x.sum().item()", "item()"),
    "tolist": Refusal("GEN0220", "return x * x[0].tolist()[0]", "tolist()"),
    "size_from_data": Refusal("GEN0220", "n = int(x.sum())\nreturn x[:n]", "n = int(x.sum())"),
    "size_without_bound": Refusal(
        "GEN0226", "return torch.bincount(x.long().flatten())", "bincount", "torch._check"
    ),
    "repeated_by_data": Refusal(
        "GEN0226", "return torch.repeat_interleave(x.long().flatten())", "repeat_interleave"
    ),
    "argument_from_data": Refusal(
        "GEN0223",
        "y = x[x > 0]\nreturn torch.zeros(y.shape[0]) + y",
        "torch.zeros",
        "depends on the data",
    ),
    "two_sizes_from_data": Refusal(
        "GEN0226",
        "y = x[x > 0]\nreturn y.unsqueeze(0) * y.unsqueeze(1)",
        None,
        "one such dimension",
    ),
    "named_as_sizes": Refusal("GEN0226", "return {'y': x[x > 0], 'z.sizes': x}", None, "'z.sizes'"),
    "fixed_view": Refusal("GEN0221", "return x.view(2, 6) * 2", None, "write 2 into the shape"),
    "divisible": Refusal("GEN0221", "return x.view(-1, 4)", None, "(6*b) % 4"),
    "square_root_of_a_size": Refusal(
        "GEN0221", "return x * math.sqrt(x.shape[0])", None, "fixed b to 2"
    ),
    "upper_bound": Refusal(
        "GEN0221", "y = torch.zeros(5, 6)\nreturn y[: x.shape[0]] + x", None, "b: {max: 5}"
    ),
    "branches_of_two_shapes": Refusal(
        "GEN0222",
        "return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y[:, :2], (x,))",
        "torch.cond",
        "one shape",
    ),
    "turn_that_returns_its_operand": Refusal(
        "GEN0222",
        "y = x.sum(0)\nreturn scan(lambda c, i: (c + i, c), y, x)",
        "return scan",
        "x.clone()",
        before="from torch._higher_order_ops.scan import scan\n",
    ),
    "branch_writes_to_its_operand": Refusal(
        "GEN0223",
        "return torch.cond(x.sum() > 0, lambda y: y.add_(1), lambda y: y - 1, (x,))",
        "torch.cond",
    ),
    "nan_in_a_buffer": Refusal(
        "GEN0229",
        "y = x + 1\nreturn y / self.scale",
        "self.scale",
        "calibration",
        init="self.register_buffer('scale', torch.zeros(0, 6).mean(0))",
    ),
    "infinite_scale": Refusal(
        "GEN0229",
        "y = x + 1\nreturn y * self.scale.view(1, -1)",
        "return y * self.scale",
        "multiplied with",
        init="self.register_buffer('scale', 127 / torch.zeros(6))",
    ),
    "quantised_weight_with_an_infinite_scale": Refusal(
        "GEN0229",
        "w = self.w.to(torch.float32) * self.scale\nreturn x @ w",
        "self.w.to(torch.float32) * self.scale",
        "'scale'",
        init=(
            "self.register_buffer('w', torch.ones(6, 6, dtype=torch.int8))\n"
            "self.register_buffer('scale', 1 / torch.tensor([1.0, 2, 4, 0, 8, 16]))"
        ),
    ),
    "two_buffers_in_one_memory": Refusal(
        "GEN0230",
        "self.keys.add_(x.sum(0))\nreturn x[:, :3] + self.first",
        "self.keys.add_",
        "'keys' and 'first' share",
        init=(
            "self.register_buffer('keys', torch.zeros(6))\n"
            "self.register_buffer('first', self.keys[:3])"
        ),
    ),
    "a_view_of_a_buffer_is_written": Refusal(
        "GEN0230",
        "self.first.add_(1)\nreturn x + self.keys",
        "self.first.add_",
        "take the view of it in the forward",
        init=(
            "self.register_buffer('keys', torch.zeros(6))\n"
            "self.register_buffer('first', self.keys[:3])"
        ),
    ),
    "random_numbers_without_gradients": Refusal(
        "GEN0225",
        "with torch.no_grad():\n    y = torch.rand_like(x)\nreturn x + y",
        "y = torch.rand_like(x)",
    ),
    "an_operator_in_a_branch": Refusal(
        "GEN0222",
        "other = lambda y: y.clone().resize_(3, 4)\n"
        "return torch.cond(x.sum() > 0, lambda y: y + 1, other, (x,))",
        "other = lambda y",
        "resize_()",
    ),
    "custom_operator_without_a_shape_rule": Refusal(
        "GEN0223",
        "y = x + 1\nreturn torch.ops.genie_tests.shapeless(y)",
        "torch.ops.genie_tests.shapeless",
        "shape of its result",
        before=(
            "if not hasattr(torch.ops.genie_tests, 'shapeless'):\n"
            "    @torch.library.custom_op('genie_tests::shapeless', mutates_args=())\n"
            "    def shapeless(x: torch.Tensor) -> torch.Tensor:\n"
            "        return x * 2\n"
        ),
    ),
    "custom_operator": Refusal(
        "GEN0223",
        "return torch.ops.genie_tests.twice(x)",
        "torch.ops.genie_tests.twice",
        "allow-list",
        before=(
            "if not hasattr(torch.ops.genie_tests, 'twice'):\n"
            "    @torch.library.custom_op('genie_tests::twice', mutates_args=())\n"
            "    def twice(x: torch.Tensor) -> torch.Tensor:\n"
            "        return x * 2\n"
            "    twice.register_fake(torch.empty_like)\n"
        ),
    ),
    "sparse_operator": Refusal("GEN0223", "return x.to_sparse()", "x.to_sparse()", "dense"),
    "autocast": Refusal(
        "GEN0223",
        "with torch.autocast('cpu', dtype=torch.bfloat16):\n    y = x @ x.t()\nreturn y",
        None,
        "autocast on",
    ),
    "vmap": Refusal(
        "GEN0223",
        "return torch.vmap(lambda r: r * 2)(x)",
        "torch.vmap",
        "the call of torch.vmap is not supported",
    ),
    "a_turn_that_reads_a_weight_unseen": Refusal(
        "GEN0223",
        "zero = torch.zeros((), dtype=torch.int64)\n"
        "loop = torch.ops.higher_order.while_loop\n"
        "return loop(lambda i, y: i < 3, lambda i, y: (i + 1, y + self.b), (zero, x), ())[1]",
        "return loop",
        "as an operand",
        init="self.b = nn.Parameter(torch.ones(6))",
    ),
    "a_script_module_inside": Refusal(
        "GEN0222",
        "return self.l(x)",
        "self.l = torch.jit.script",
        "module 'l'",
        init="self.l = torch.jit.script(nn.Linear(6, 6))",
    ),
    "packed_quantised_weights": Refusal(
        "GEN0223",
        "return self.l(x)",
        "def build",
        "module 'l'",
        init="self.l = nn.Linear(6, 6)",
        build="return torch.ao.quantization.quantize_dynamic(M(), {nn.Linear})",
    ),
    "functional_gradient": Refusal(
        "GEN0223", "return torch.func.grad(lambda r: (r * r).sum())(x)", None, "torch.func wraps"
    ),
    "storage_replaced": Refusal(
        "GEN0223", "y = x * 2\ny.set_(torch.ones(3))\nreturn y", "y.set_", "aten.set_"
    ),
    "resized": Refusal("GEN0223", "y = torch.ones(3)\ny.resize_(6)\nreturn x + y", "y.resize_"),
    "rank": Refusal("GEN0223", "return x.view(-1, *[1] * 20, 6)", "x.view", "22 dimensions"),
    "dtype": Refusal("GEN0223", "return x.to(torch.float8_e4m3fnuz)", "x.to", "e4m3fnuz"),
    "float_of_a_size": Refusal("GEN0223", "return x * x.shape[0] ** 0.5", "x.shape[0] ** 0.5"),
    "bool_of_a_size": Refusal("GEN0223", "return x, x.shape[0] > 3", None, "output.1"),
    "numpy": Refusal("GEN0222", "return torch.from_numpy(x.numpy())", "x.numpy()"),
    "plain_data": Refusal("GEN0222", "return x.data * 2", None, "fake tensor"),
    "unknown_result_class": Refusal(
        "GEN0222",
        "return Out(x)",
        None,
        "tuples, lists, dicts and dataclasses",
        before="class Out:\n    def __init__(self, x):\n        self.x = x\n",
    ),
    "nothing_returned": Refusal("GEN0227", "x + 1", None, "returns nothing"),
    "none_returned": Refusal("GEN0227", "return {'a': None}", None, "returns nothing"),
    "forward_raises": Refusal("GEN0202", "raise ValueError('bad')", "raise ValueError", "bad"),
    "shapes_do_not_fit": Refusal("GEN0202", "return x @ torch.ones(5, 5)", "x @ torch.ones(5, 5)"),
    "forward_exits": Refusal("GEN0202", "raise SystemExit(0)", "raise SystemExit", "SystemExit"),
    "forward_interrupts": Refusal("GEN0202", "raise KeyboardInterrupt", "raise Key", "Interrupt"),
    "endless_recursion": Refusal("GEN0202", "return self.forward(x)", "self.forward(x)", " more)"),
    "unprintable_error": Refusal(
        "GEN0202",
        "raise Odd",
        "raise Odd",
        "cannot be shown",
        before="class Odd(Exception):\n    def __str__(self):\n        raise RuntimeError\n",
    ),
    "entry_raises": Refusal("GEN0202", "return x", "raise ValueError", build="raise ValueError(3)"),
    "entry_exits": Refusal("GEN0202", "return x", "raise SystemExit", build="raise SystemExit(2)"),
    "entry_recurses": Refusal("GEN0202", "return x", "return build()", build="return build()"),
    "import_raises": Refusal("GEN0202", "return x", "1 / 0", before="1 / 0\n"),
    "import_exits": Refusal("GEN0202", "return x", "sys.exit()", before="import sys\nsys.exit()\n"),
    "import_is_missing": Refusal(
        "GEN0202", "return x", "import no_such", before="import no_such\n"
    ),
    "syntax": Refusal("GEN0202", "return (x", "return (x", "never closed"),
    "no_module": Refusal("GEN0203", "return x", "def build", "returned int", build="return 42"),
    "script": Refusal(
        "GEN0203", "return x", "def build", "TorchScript", build="return torch.jit.script(M())"
    ),
    "meta_device": Refusal(
        "GEN0205",
        "return self.l(x)",
        "self.l = nn.Linear",
        "first is l.weight",
        init="self.l = nn.Linear(6, 6, device='meta')",
    ),
    "moved_to_the_meta_device": Refusal(
        "GEN0205",
        "return self.l(x)",
        "model.to('meta')",
        "first is l.weight",
        init="self.l = nn.Linear(6, 6)",
        build="model = M()\nmodel.to('meta')\nreturn model",
    ),
    "a_constant_on_the_meta_device": Refusal(
        "GEN0205",
        "y = x + 1\nreturn y + self.c",
        "self.c = torch.ones",
        "no values",
        init="self.c = torch.ones(6, device='meta')",
    ),
    "lazy_module": Refusal(
        "GEN0205",
        "return self.l(x)",
        "self.l = nn.LazyLinear(6)",
        "not initialised",
        init="self.l = nn.LazyLinear(6)",
    ),
    "sparse_buffer": Refusal(
        "GEN0223",
        "return x @ self.s",
        "self.register_buffer('s'",
        "sparse_coo",
        init="self.register_buffer('s', torch.eye(6).to_sparse())",
    ),
    "quantised_buffer": Refusal(
        "GEN0223",
        "return x + self.q.dequantize()",
        "self.register_buffer('q', q)",
        "quantised",
        init=(
            "q = torch.quantize_per_tensor(torch.ones(6), 1, 0, torch.qint8)\n"
            "self.register_buffer('q', q)"
        ),
    ),
    "another_parameter_name": Refusal(
        "GEN0206",
        "return x",
        None,
        "did you mean 'xx'",
        build="class N(M):\n    def forward(self, xx):\n        return xx\nreturn N()",
    ),
    "only_positions": Refusal(
        "GEN0206",
        "return x",
        None,
        "no parameter 'x'",
        build="class N(M):\n    def forward(self, *args):\n        return args[0]\nreturn N()",
    ),
    "a_parameter_more": Refusal(
        "GEN0206",
        "return x",
        None,
        "needs 'mask'",
        build="class N(M):\n    def forward(self, x, mask):\n        return x\nreturn N()",
    ),
}


def source(case: Refusal) -> str:
    init, forward = indent(dedent(case.init), " " * 8), indent(dedent(case.forward), " " * 8)
    return (
        f"{HEAD}{case.before}\n\nclass M(nn.Module):\n    def __init__(self):\n"
        f"        super().__init__()\n{init}\n\n    def forward(self, x):\n{forward}\n\n\n"
        f"def build():\n{indent(case.build, '    ')}\n"
    )


def attempt(path: Path, spec: Spec) -> None:
    """Load and capture a model file as the compiler's child process does."""
    model = load_model(path, "model.py", spec, None)
    program = export(model, spec, path, "model.py")
    capture(model, program, spec, "model.py", Locator(model, spec, path, "model.py"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    case = REFUSALS[name]
    path = tmp_path / "model.py"
    path.write_text(source(case))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with pytest.raises(GenieError) as caught:
        attempt(path, spec_of({"x": ("float32", ["b", 6])}))
    error = caught.value
    assert error.code == case.code, str(error)
    assert case.says in str(error)
    assert error.remedy
    assert error.place is not None
    assert len(str(error)) < 4000
    assert " at 0x" not in str(error)
    assert str(tmp_path) not in str(error)
    if case.line is not None:
        assert error.place.file == "model.py"
        lines = path.read_text().splitlines()
        assert error.place.line is not None, str(error)
        assert case.line in lines[error.place.line - 1]
    shown = capfd.readouterr()
    assert shown.out + shown.err == "", "torch told it as well"
