"""`genie execute`: run a plan, embedded or on daemons."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genie.cli.common import json_option, print_json, settings_option

if TYPE_CHECKING:
    from genie.client import RunResult, Tensor
    from genie.client.compare import Comparison

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command("execute")
@click.argument("plan", type=_PATH)
@click.option("--input", "single", multiple=True, metavar="NAME=FILE", help="A .npy file.")
@click.option("--inputs", "many", type=_PATH, help="A .safetensors or .npz file with inputs.")
@click.option("--output", type=_PATH, help="Write the outputs to this .safetensors file.")
@click.option("--entrypoint", default="forward", show_default=True, help="What to call.")
@click.option(
    "--on",
    multiple=True,
    metavar="ENDPOINT",
    help="A daemon: unix:///path or host:port, or DEVICE=ENDPOINT; may be repeated. "
    "Without it the plan runs in this process.",
)
@click.option(
    "--transport",
    type=click.Choice(["auto", "shm", "tcp", "dpdk", "ucx"]),
    default="auto",
    show_default=True,
    help="The path between daemons, and from a client on another host. A path that is named is "
    "taken, or the run is refused.",
)
@click.option("--run-id", metavar="ID", help="Name the result: the same id is never run twice.")
@click.option(
    "--deadline", type=click.FloatRange(0.001), metavar="SECONDS", help="Give up after this long."
)
@click.option(
    "--stream",
    is_flag=True,
    help="Print tokens as they come, one line a step, the rows of a batch separated by tabs.",
)
@click.option("--compare", "model", type=_PATH, help="Compare with this model run eagerly.")
@click.option("--spec", type=_PATH, help="The model's spec, for --compare.")
@click.option("--tls-dir", type=_PATH, envvar="GENIE_TLS_DIR", help="As `genie auth init` made.")
@click.option("--token-file", type=_PATH, envvar="GENIE_TOKEN_FILE", help="The daemon's token.")
@settings_option
@json_option
def command(
    plan: Path,
    single: tuple[str, ...],
    many: Path | None,
    output: Path | None,
    entrypoint: str,
    on: tuple[str, ...],
    transport: str,
    run_id: str | None,
    deadline: float | None,
    stream: bool,
    model: Path | None,
    spec: Path | None,
    tls_dir: Path | None,
    token_file: Path | None,
    settings: dict[str, str],
    as_json: bool,
) -> int:
    """Run PLAN and print what came out.

    Inputs must have the names, dtypes and shapes that the plan declares. With --run-id the result
    is recorded, and asking again for it returns what is on record.

    An entry point that generates takes its parameters with --set: max_new_tokens (needed),
    temperature, top_k, top_p and seed.
    """
    from genie.cli.generate import prepare, printer
    from genie.client import connect, load_plan
    from genie.client.files import check_writable, save_tensors
    from genie.client.session import DEADLINE
    from genie_schemas.errors import ExitCode

    if (model is None) != (spec is None):
        raise click.UsageError("--compare and --spec are given together")
    if model is not None and entrypoint != "forward":
        raise click.UsageError(f"--compare runs the model's forward, not {entrypoint!r}")
    loaded = load_plan(plan)
    inputs = _read_inputs(single, many)
    # Before anything is started: a wrong input should not cost a connection.
    call = prepare(loaded.installed.plan, entrypoint, inputs, settings, compared=model is not None)
    if stream and not call.generates:
        raise click.UsageError(f"--stream prints tokens, and {entrypoint!r} generates none")
    if output is not None:
        check_writable(output)
    with connect(
        list(on) or None, tls_dir=tls_dir, token_file=token_file, transport=transport
    ) as session:
        session.install(loaded)
        show = printer(as_json) if stream else None
        result = call.run(session, run_id, deadline or DEADLINE, show)
        traffic = session.traffic()
    if output is not None:
        save_tensors(output, result.tensors)
    report = result.to_json()
    report["bytes"] = traffic  # what the command moved in all: with the plan and its constants
    compared = None
    if model is not None and spec is not None:
        compared = _compare(model, spec, settings, inputs, result)
        report["compare"] = compared.to_json()
    if as_json:
        print_json(report, one_line=stream)
    else:
        # Where tokens are streamed, stdout has these alone.
        _print_summary(result, report, output, compared, err=stream)
    if compared is not None and not compared.ok:
        _report_difference(compared)
        return int(ExitCode.DIFFERENCE)
    return 0


def _read_inputs(single: tuple[str, ...], many: Path | None) -> dict[str, Tensor]:
    from genie.client.files import load_array, load_inputs

    found: dict[str, Tensor] = dict(load_inputs(many)) if many is not None else {}
    for text in single:
        name, equals, file = text.partition("=")
        if not equals or not name or not file:
            raise click.UsageError(f"--input {text!r} is not NAME=FILE")
        if name in found:
            raise click.UsageError(f"the input {name!r} is given twice")
        found[name] = load_array(Path(file))
    return found


def _compare(
    model: Path,
    spec: Path,
    settings: dict[str, str],
    inputs: dict[str, Tensor],
    result: RunResult,
) -> Comparison:
    """Run the model eagerly in a child process on the same inputs and compare every output."""
    from genie.client.compare import compare
    from genie.client.files import load_inputs, save_tensors
    from genie.graph.outputs import UPDATED
    from genie.model.eager import run_eager

    with tempfile.TemporaryDirectory(prefix="genie-compare-") as name:
        given, made = Path(name) / "inputs.safetensors", Path(name) / "outputs.safetensors"
        save_tensors(given, inputs)
        updated = [name for name in result.tensors if name.startswith(f"{UPDATED}.")]
        run_eager(model, spec, given, made, result.threads, settings, updated)
        return compare(result.tensors, load_inputs(made))


def _report_difference(compared: Comparison) -> None:
    from genie.cli.render import render_error, use_colour
    from genie_schemas.errors import GenieError

    error = GenieError(
        "GEN0423",
        "the outputs differ from eager execution",
        cause="; ".join(compared.problems),
        remedy="compare on the same kind of device with the same thread count; if it stays, "
        "please report it",
    )
    click.echo(render_error(error, colour=use_colour(sys.stderr)), err=True)


def _print_summary(
    result: RunResult,
    report: dict[str, Any],
    output: Path | None,
    compared: Comparison | None,
    *,
    err: bool,
) -> None:
    say = partial(click.echo, err=err)
    how = "on record, not run again" if result.replayed else f"{result.timing.total_ms:.1f} ms"
    say(f"{result.run_id}: {how}")
    for name, tensor in result.tensors.items():
        shape = ", ".join(map(str, tensor.shape))
        say(f"  {name}  {tensor.dtype}[{shape}]  sha256 {tensor.sha256()[:16]}")
    for name, value in result.literals.items():
        say(f"  {name}  {value}")
    if result.generation is not None and result.generation.ms_per_token is not None:
        each = result.generation.ms_per_token
        say(f"  {result.generation.tokens} tokens, {each:.2f} ms each after the first")
    if result.attempts > 1:
        say(f"  after {result.attempts} attempts")
    sent, received = report["bytes"]["sent"], report["bytes"]["received"]
    if sent or received:
        say(f"  {sent} bytes sent, {received} received")
    if compared is not None:
        word = "equal to" if compared.max_abs == 0 and compared.ok else "compared with"
        difference = f"max_abs {compared.max_abs:g}, max_rel {compared.max_rel:g}"
        say(f"  {word} eager execution ({difference})")
    if output is not None:
        say(f"  written to {output}")
