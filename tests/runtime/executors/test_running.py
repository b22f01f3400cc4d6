"""Plans run by each executor: bit for bit what eager computes, accounted, and never aliased."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from torch.nn import functional

from tests.runtime.executors.conftest import MakeExecutor
from tests.runtime.executors.planning import WAIT, Book, Listener, Rig, e, op, r

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def where(port: tuple[str, str]) -> torch.device:
    """Where eager runs for comparison."""
    return torch.device("cuda", 0) if port[1] == "cuda" else torch.device("cpu")


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b.cpu()).all())


def layers(width: int = 96, depth: int = 3) -> Book:
    """A stack of linear layers with in-place activations: one program, called `depth` times."""
    book = Book("layers", dims={"batch": (1, 8)}, inputs=[("x", f"f32[batch,{width}]", "d0")])
    book.program(
        "layer",
        f"h: f32[batch,{width}]; w: f32[{width},{width}]; b: f32[{width}]",
        f"out: f32[batch,{width}]",
        f"batch*{4 * width}",
        op("lin", "linear.default", r("h"), r("w"), r("b")),
        op("out", "relu_.default", r("lin")),
    )
    book.step("load@d0", "load", " ".join(f"w{i} b{i}" for i in range(depth)))
    for i in range(depth):
        book.constants[f"w{i}"] = uniform(width, width, seed=i)
        book.constants[f"b{i}"] = uniform(width, seed=i + 100)
        source = "x" if i == 0 else f"h{i - 1}"
        book.compute(f"layer{i}@d0", "layer", f"{source} w{i} b{i}", f"h{i}")
        book.step(f"free{i}@d0", "free", source)
    book.step("return@d0", "return", f"h{depth - 1}")
    book.outputs = [f"h{depth - 1}"]
    return book


def layers_eager(book: Book, x: torch.Tensor, where: torch.device) -> torch.Tensor:
    h = x.to(where)
    with torch.no_grad():
        for i in range(len(book.constants) // 2):
            w, b = book.constants[f"w{i}"].to(where), book.constants[f"b{i}"].to(where)
            h = functional.linear(h, w, b).relu_()
    return h


def test_a_shared_program_equals_eager_at_every_batch(rig: Rig, where: torch.device) -> None:
    book = layers()
    plan = book.plan()
    rig.install(plan, book)
    # Several times each: the first run is metered, on CUDA later ones replay a graph.
    for batch in (1, 8, 3, 8, 8, 8, 1):
        x = uniform(batch, 96, seed=batch)
        got, stats = rig.run(plan, {"x": x}, {"batch": batch})
        assert same(got["h2"], layers_eager(book, x, where))
        constants = 3 * (96 * 96 + 96) * 4
        # Input and returned output lie in regions; of the values, two layers' at once at most.
        assert stats.peak_bytes == constants + 3 * batch * 96 * 4
        assert stats.steps == 7
        assert stats.compute_ns > 0


def test_lists_views_scalars_and_sizes(rig: Rig, where: torch.device) -> None:
    book = Book("mixed", dims={"n": (1, 16)}, inputs=[("x", "f32[n,6]", "d0")])
    book.program(
        "mix",
        "x: f32[n,6]; table: f32[4,6]",
        "y: f32[2*n,4]; top: f32[n,6]; at: i64[n]; picked: f32[n,6]; mask: bool[n,6]",
        "n*1000+100000",
        op("a b c", "split.Tensor", r("x"), 2, 1),
        op("ac", "cat.default", [r("a"), r("c")], 1),
        op("two", "cat.default", [r("ac"), r("ac")]),
        op("y", "mul.Tensor", r("two"), {"f": (0.5).hex()}),
        op("ids", "arange.default", e("n"), dtype={"dtype": "i64"}),
        op("at", "remainder.Scalar", r("ids"), 4),
        op("rows", "index.Tensor", r("table"), [r("at"), None]),
        op("picked", "add.Tensor", r("rows"), r("x"), alpha=2),
        op("sorted -", "sort.default", r("x"), -1, True),
        op(
            "top",
            "clone.default",
            r("sorted"),
            memory_format={"memory_format": "contiguous_format"},
        ),
        op("mask", "gt.Tensor", r("b2"), r("zero")),
    )
    ops = book.programs["mix"]["ops"]
    ops.insert(-1, op("b2", "repeat.default", r("b"), [1, 3]).data())
    ops.insert(-1, op("zero", "full.default", [e("n"), 6], {"f": (0.0).hex()}).data())
    book.constants["table"] = uniform(4, 6, seed=9)
    book.step("load@d0", "load", "table")
    book.compute("mix@d0", "mix", "x table", "y top at picked mask")
    for name in ("y", "top", "at", "picked", "mask"):
        book.step(f"return.{name}@d0", "return", name)
        book.outputs.append(name)
    plan = book.plan()
    rig.install(plan, book)
    for n in (5, 1, 5, 5, 16):
        x = uniform(n, 6, seed=n)
        got, _ = rig.run(plan, {"x": x}, {"n": n})
        there = x.to(where)
        a, b, c = there.split(2, 1)
        two = torch.cat([torch.cat([a, c], 1)] * 2)
        at = torch.arange(n, device=where) % 4
        assert same(got["y"], two * 0.5)
        assert same(got["top"], there.sort(-1, descending=True).values)
        assert same(got["at"], at)
        assert same(got["picked"], torch.add(book.constants["table"].to(where)[at], there, alpha=2))
        assert same(got["mask"], b.repeat(1, 3) > 0)


def convolutions(devices: Sequence[str]) -> Book:
    """A channels-last value that crosses from the first device to the second."""
    first, second = devices[0], devices[-1]
    image, hidden = "f32[n,3,9,9]", "f32[n,8,9,9]{0,2,3,1}"
    book = Book(
        "convolutions",
        dims={"n": (1, 4)},
        devices=dict.fromkeys(devices, "any"),
        inputs=[("image", image, first), ("bias", "f32[8]", second)],
    )
    book.constants = {"w0": uniform(8, 3, 3, 3), "w1": uniform(4, 8, 3, 3, seed=1)}
    last = {"memory_format": "channels_last"}
    book.program(
        "stem",
        f"x: {image}; w: f32[8,3,3,3]",
        f"y: {hidden}",
        "n*20000",
        op("nhwc", "contiguous.default", r("x"), memory_format=last),
        op("y", "conv2d.default", r("nhwc"), r("w"), None, [1, 1], [1, 1]),
    )
    book.program(
        "head",
        f"x: {hidden}; w: f32[4,8,3,3]; b: f32[8]",
        "y: f32[n,4]",
        "n*20000",
        op("flat", "view.default", r("b"), [1, 8, 1, 1]),
        op("biased", "add.Tensor", r("x"), r("flat")),
        op("c", "conv2d.default", r("biased"), r("w")),
        op("y", "mean.dim", r("c"), [2, 3]),
    )
    book.step("load@0", "load", "w0", device=first)
    book.step("load@1", "load", "w1", device=second)
    book.compute("stem@0", "stem", "image w0", "hidden", first)
    book.step("hidden@0->1", "transfer", "hidden", src=first, dst=second, writes=["hidden.1"])
    book.step("free@0", "free", "hidden", device=first)
    book.compute("head@1", "head", "hidden.1 w1 bias", "y", second)
    book.step("return@1", "return", "y", device=second)
    book.outputs = ["y"]
    return book


def test_two_devices_pass_a_strided_value_on(rig: Rig, where: torch.device) -> None:
    book = convolutions(["d0", "d1"])
    plan = book.plan()
    rig.install(plan, book, ["d0", "d1"])
    for n in (2, 1, 2, 2):
        image, bias = uniform(n, 3, 9, 9, seed=n), uniform(8, seed=5)
        inputs = {"image": image, "bias": bias}
        sender = rig.request(plan, "d0", {"n": n}, inputs)
        receiver = rig.request(plan, "d1", {"n": n}, inputs, run_key=sender.run_key)
        first, second = Listener(), Listener()
        rig.executor.run(receiver, second)
        rig.executor.run(sender, first)
        first.ready("hidden@0->1")
        first.finished()
        assert second.events.empty()
        rig.pool.view(receiver.incoming["hidden@0->1"])[:] = rig.pool.view(
            sender.outgoing["hidden@0->1"]
        )
        rig.executor.deliver(sender.run_key, "hidden@0->1")
        stats = second.finished()
        assert stats.wait_ns > 0
        with torch.no_grad():
            nhwc = image.to(where).contiguous(memory_format=torch.channels_last)
            hidden = functional.conv2d(nhwc, book.constants["w0"].to(where), padding=1)
            biased = hidden + bias.to(where).view(1, 8, 1, 1)
            y = functional.conv2d(biased, book.constants["w1"].to(where)).mean((2, 3))
        assert same(rig.results(plan, receiver)["y"], y)
        # The region holds the value dense in its type's order: channels innermost.
        sent = rig.get(sender.outgoing["hidden@0->1"], "f32[n,8,9,9]{0,2,3,1}", {"n": n})
        assert same(sent, hidden)
        assert sent.is_contiguous(memory_format=torch.channels_last)


def test_outputs_share_memory_with_nothing(rig: Rig) -> None:
    """What a program returns unchanged, viewed or twice is a value of its own."""
    book = Book("aliases", inputs=[("x", "f32[4,8]", "d0")])
    book.constants = {"k": uniform(4, 8)}
    book.program(
        "views",
        "x: f32[4,8]; k: f32[4,8]",
        "same: f32[4,8]; turned: f32[8,4]; part: f32[2,8]; twice: f32[32]; own: f32[32]; "
        "k2: f32[32]",
        "10000",
        op("same", "dropout.default", r("x"), {"f": (0.5).hex()}, False),
        op("turned", "t.default", r("x")),
        op("part", "slice.Tensor", r("x"), 0, 1, 3),
        op("made", "neg.default", r("x")),
        op("twice", "view.default", r("made"), [32]),
        op("own", "view.default", r("made"), [-1]),
        op("k2", "view.default", r("k"), [32]),
    )
    book.program("bump", "v: f32[32]", "w: f32[32]", "1000", op("w", "add.Tensor", r("v"), 1))
    book.step("load@d0", "load", "k")
    book.compute("views@d0", "views", "x k", "same turned part twice own k2")
    book.step("free@d0", "free", "x same")
    book.compute("bump@d0", "bump", "k2", "bumped")
    for name in ("turned", "part", "twice", "own", "k2", "bumped"):
        book.step(f"return.{name}@d0", "return", name)
        book.outputs.append(name)
    book.step("return.k@d0", "return", "k")
    book.outputs.append("k")
    plan = book.plan()
    rig.install(plan, book)
    x, k = uniform(4, 8, seed=3), book.constants["k"]
    for _ in range(4):
        got, _ = rig.run(plan, {"x": x})
        assert same(got["turned"], x.t())
        assert same(got["part"], x[1:3])
        assert same(got["twice"], -x.view(32))
        assert same(got["own"], -x.view(32))
        assert same(got["k2"], k.view(32))
        assert same(got["bumped"], k.view(32) + 1)
        assert same(got["k"], k)


def test_sizes_that_depend_on_values_inside_a_program(rig: Rig, where: torch.device) -> None:
    """No CUDA graph can record this: it runs eagerly, with the same result."""
    book = Book("select", inputs=[("x", "f32[64]", "d0")])
    book.program(
        "select",
        "x: f32[64]",
        "y: f32[]",
        "2000",
        op("mask", "gt.Scalar", r("x"), 0),
        op("some", "index.Tensor", r("x"), [r("mask")]),
        op("y", "sum.default", r("some")),
    )
    book.compute("select@d0", "select", "x", "y")
    book.step("return@d0", "return", "y")
    book.outputs = ["y"]
    plan = book.plan()
    rig.install(plan, book)
    for seed in range(5):
        x = uniform(64, seed=seed)
        got, _ = rig.run(plan, {"x": x})
        there = x.to(where)
        assert same(got["y"], there[there > 0].sum())


def test_references_in_keywords_and_nested_lists(rig: Rig, where: torch.device) -> None:
    book = Book("keywords", inputs=[("x", "f32[4,4]", "d0")])
    book.constants = {"low": torch.full((4, 4), -0.5), "high": torch.full((4, 4), 0.5)}
    book.program(
        "clamp",
        "x: f32[4,4]; low: f32[4,4]; high: f32[4,4]",
        "y: f32[4,4]; z: f32[12,4]",
        "1000",
        op("y", "clamp.Tensor", r("x"), min=r("low"), max=r("high")),
        op("z", "cat.default", dim=0, tensors=[r("x"), r("low"), r("y")]),
    )
    book.step("load@d0", "load", "low high")
    book.compute("clamp@d0", "clamp", "x low high", "y z")
    for name in ("y", "z"):
        book.step(f"return.{name}@d0", "return", name)
        book.outputs.append(name)
    plan = book.plan()
    rig.install(plan, book)
    for seed in range(4):
        x = uniform(4, 4, seed=seed)
        got, _ = rig.run(plan, {"x": x})
        y = x.to(where).clamp(-0.5, 0.5)
        assert same(got["y"], y)
        assert same(got["z"], torch.cat([x, book.constants["low"], y.cpu()]))


def test_more_sizes_than_are_kept(rig: Rig) -> None:
    book = Book("sizes", dims={"n": (1, 200)}, inputs=[("x", "f32[n]", "d0")])
    book.program("p", "x: f32[n]", "y: f32[n]", "n*8", op("y", "mul.Tensor", r("x"), e("n")))
    book.compute("p@d0", "p", "x", "y")
    book.step("return@d0", "return", "y")
    book.outputs = ["y"]
    plan = book.plan()
    rig.install(plan, book)
    for n in [*range(1, 80), 1, 79]:
        x = uniform(n, seed=n)
        got, stats = rig.run(plan, {"x": x}, {"n": n})
        assert same(got["y"], x * n)
        assert stats.peak_bytes == 3 * 4 * n


def test_empty_values(rig: Rig) -> None:
    book = Book("empty", dims={"n": (0, 4)}, inputs=[("x", "f32[n,3]", "d0")])
    book.program("inc", "x: f32[n,3]", "y: f32[n,3]", "n*12", op("y", "add.Tensor", r("x"), 1))
    book.compute("inc@d0", "inc", "x", "y")
    book.step("return@d0", "return", "y")
    book.outputs = ["y"]
    plan = book.plan()
    rig.install(plan, book)
    for n in (0, 2, 0, 0):
        x = uniform(n, 3)
        got, _ = rig.run(plan, {"x": x}, {"n": n})
        assert same(got["y"], x + 1)


def test_runs_in_opposite_order_over_two_devices_cannot_block(make_executor: MakeExecutor) -> None:
    """Each device computes a run that waits for bytes that only the other device's run makes."""
    rigs = {d: Rig(make_executor(name=d)) for d in ("a", "b")}
    forward, backward = convolutions(["d0", "d1"]), convolutions(["d1", "d0"])
    image, bias = uniform(2, 3, 9, 9), uniform(8)
    requests = []
    for book in (forward, backward):
        plan = book.plan()
        for name, device in (("a", "d0"), ("b", "d1")):
            rigs[name].install(plan, book, [device])
            request = rigs[name].request(
                plan, device, {"n": 2}, {"image": image, "bias": bias}, run_key=book.inputs[0][2]
            )
            requests.append((rigs[name], request))
    # The receivers first: they wait on both devices before anything was computed.
    requests.sort(key=lambda item: not item[1].incoming)
    listeners = [Listener() for _ in requests]
    for (rig, request), listener in zip(requests, listeners, strict=True):
        rig.executor.run(request, listener)
    for (rig, sender), listener in list(zip(requests, listeners, strict=True))[2:]:
        listener.ready("hidden@0->1")
        other, receiver = next(
            (g, q) for g, q in requests[:2] if q.run_key == sender.run_key and g is not rig
        )
        target = other.pool.view(receiver.incoming["hidden@0->1"])
        target[:] = rig.pool.view(sender.outgoing["hidden@0->1"])
        other.executor.deliver(sender.run_key, "hidden@0->1")
    for listener in listeners:
        listener.finished()
    for made in rigs.values():
        made.pool.close()


def test_many_runs_at_once(rig: Rig, where: torch.device) -> None:
    book = layers(width=32)
    plan = book.plan()
    rig.install(plan, book)
    inputs = [uniform(1 + i % 8, 32, seed=i) for i in range(24)]
    results: dict[int, torch.Tensor] = {}
    lock = threading.Lock()

    def client(start: int) -> None:
        for i in range(start, len(inputs), 4):
            with lock:
                request = rig.request(plan, "d0", {"batch": len(inputs[i])}, {"x": inputs[i]})
            listener = Listener()
            rig.executor.run(request, listener)
            listener.finished()
            results[i] = rig.results(plan, request)["h2"]

    threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    for i, x in enumerate(inputs):
        assert same(results[i], layers_eager(book, x, where))


def test_facts(rig: Rig, port: tuple[str, str]) -> None:
    facts = rig.executor.facts(WAIT)
    assert facts.torch == torch.__version__
    assert facts.threads == 1
    assert facts.memory_bytes > 1 << 28
    assert facts.capability
    if port[1] == "cpu":
        assert facts.device_name.startswith("cpu (")
