"""The reference pages say what the program has: no more, and no less."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic import BaseModel

import genie_transport
from genie.bench import SUITES
from genie_runtime.config import Limits
from genie_schemas import args, messages, plan, spec, verify
from genie_schemas.errors import CODES
from genie_schemas.types import DTYPES
from genie_schemas.verify.states import check_states
from tests.docs.pages import (
    PAGES,
    code_spans,
    commands,
    leaves,
    name,
    options,
    read,
    resolve,
    rows,
    section,
)

# -- commands ----------------------------------------------------------------------------------


def problems(line: str) -> list[str]:
    found = resolve(line)
    if isinstance(found, str):
        return [f"{line}: {found}"]
    command, parts = found
    known = options(command)
    given = [part.partition("=")[0] for part in parts if re.match(r"-{1,2}[a-z]", part)]
    return [f"{line}: no option {option}" for option in given if option not in known]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_exist(page: Any) -> None:
    assert [found for line in commands(page) for found in problems(line)] == []


@pytest.mark.parametrize("code", CODES)
def test_commands_in_explanations_exist(code: str) -> None:
    spans = [s for s in code_spans(CODES[code].text) if re.match(r"genied? [a-z-]", s)]
    assert [found for span in spans for found in problems(span)] == []


@pytest.mark.parametrize("path", sorted(leaves()))
def test_every_option_is_in_the_reference(path: str) -> None:
    text = section("docs/cli.md", f"## genie {path}")
    documented = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", text))
    command = leaves()[path]
    wanted = {
        parameter.opts[-1]
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
    }
    assert wanted <= documented
    assert documented <= set(options(command)) | {"--check", "--compare"}


def test_every_option_of_the_daemon_is_in_its_table() -> None:
    table = [row[0] for row in rows(section("docs/daemons.md", "## Start one"))]
    documented = {re.findall(r"--[a-z-]+", cell)[0] for cell in table}
    assert documented == {o for o in options(leaves()["daemon"]) if o.startswith("--")} - {"--help"}


def test_environment_variables_belong_to_options() -> None:
    variables = {
        variable
        for page in PAGES
        for variable in re.findall(r"\bGENIE_[A-Z_]*[A-Z]\b(?![<_])", page.read_text("utf-8"))
    }
    known = {"GENIE_DEBUG", "GENIE_ENDPOINT", "GENIE_VENV", "GENIE_FAULT_POINT"}
    known |= {"GENIE_LAZY", "GENIE_LAZY_RECORDER", "GENIE_LAZY_STATS"}
    for path, command in leaves().items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                known.add(f"GENIE_{path}_{parameter.name}".replace(" ", "_").upper())
                known.update([parameter.envvar] if isinstance(parameter.envvar, str) else [])
    assert variables <= known


# -- the spec ----------------------------------------------------------------------------------


def keys(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Key of the spec → its default, through every model; keys of mappings are `*`."""
    found: dict[str, Any] = {}
    for field_name, field in model.model_fields.items():
        key = prefix + (field.alias or field_name)
        inner = [c for c in _classes(field.annotation) if issubclass(c, BaseModel)]
        default = field.get_default(call_default_factory=False)
        if not inner or (prefix == "" and (field.alias or field_name) != "model"):
            found[key] = default
        for each in inner:
            shape = str(field.annotation)
            mark = ".*." if shape.startswith("dict") else "[]." if "tuple" in shape else "."
            found |= keys(each, key + mark)
    return found


def _classes(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation]
    return [found for each in get_args(annotation) for found in _classes(each)]


def test_every_key_of_the_spec_is_in_its_table() -> None:
    table = {row[0].strip("`"): row[1] for row in rows(section("docs/spec.md", "## Keys"))}
    actual = keys(spec.Spec)
    del actual["objective"]  # a mapping with one key, which has its own row
    assert set(table) == set(actual)
    for key, default in actual.items():
        if isinstance(default, str | int) and not isinstance(default, bool):
            shown = {"30000": "30s", "50": "50ms"}.get(str(default), str(default))
            assert f"`{shown}`" in table[key], key


def test_the_spec_lists_its_dtypes_and_workloads() -> None:
    text = section("docs/spec.md", "## Keys")
    for word in (*get_args(spec.Dtype), *get_args(spec.Workload)):
        assert f"`{word}`" in text


# -- the plan ----------------------------------------------------------------------------------


def test_every_field_of_the_plan_is_in_the_reference() -> None:
    spans = " ".join(code_spans(read("docs/plan-format.md")))
    models = [m for m in vars(plan).values() if isinstance(m, type) and issubclass(m, plan.Model)]
    assert len(models) > 20
    missing = {
        f"{model.__name__}.{field}"
        for model in models
        for field in model.model_fields
        if not re.search(rf"\b{field}\b", spans)
    }
    assert missing == set()


def test_every_top_level_field_has_its_row() -> None:
    text = section("docs/plan-format.md", "## Header and digest")
    text += section("docs/plan-format.md", "## Fields")
    assert [row[0].strip("`") for row in rows(text)] == list(plan.ExecutionPlan.model_fields)


def test_argument_tags_and_dtypes() -> None:
    text = section("docs/plan-format.md", "## Programs, operators and arguments")
    spans = code_spans("\n".join(row[0] for row in rows(text)))
    tagged = [plan_arg for plan_arg in spans if plan_arg.startswith("{")]
    for shown in tagged:
        if "…" not in shown:
            data = json.loads(shown)
            assert args.encode(args.decode(data)) == data
    types = section("docs/plan-format.md", "## Types")
    shown_types = {c.strip("`") for row in rows(types) for c in (row[0], row[3])} - {""}
    assert shown_types == set(DTYPES)


def test_the_order_of_verification() -> None:
    table = rows(section("docs/plan-format.md", "## Verification"))
    stages = dict(verify.STAGES)
    documented = {row[1]: set(re.findall(r"GEN\d{4}", row[3])) for row in table if row[1] in stages}
    assert list(documented) == list(stages)
    for stage, check in stages.items():
        parts = [check, check_states] if stage == "dataflow" else [check]
        sources = [Path(inspect.getsourcefile(part) or "") for part in parts]
        source = "".join(path.read_text(encoding="utf-8") for path in sources)
        assert documented[stage] == set(re.findall(r'"(GEN\d{4})"', source)), stage


# -- limits and contracts ----------------------------------------------------------------------


def test_the_limits_of_the_daemon() -> None:
    limits = Limits()
    table = dict(rows(section("docs/daemons.md", "## Limits")))
    expected = {
        "sessions": f"{limits.sessions}",
        "plans known": f"{limits.plans};",
        "runs at once in a session": f"{limits.runs_per_session}",
        "a plan": f"{limits.plan_bytes >> 20} MiB, {limits.plan_ops:,} operators",
        "one input or output": f"{limits.io_bytes >> 30} GiB",
        "lease without a heartbeat": f"{limits.lease:g} s",
        "a prepared run that is not started": f"{limits.start_lease:g} s",
        "waiting for memory": f"{limits.admission_seconds:g} s",
        "a run": f"{limits.run_seconds:g} s",
        "a broken upload can be resumed": f"{limits.upload_seconds:g} s",
    }
    assert set(table) == set(expected)
    for row, value in expected.items():
        assert table[row].startswith(value), row


def test_the_fields_of_a_status() -> None:
    spans = set(code_spans(section("docs/daemons.md", "## Status")))
    for model in (messages.StatusReply, messages.DeviceStatus, messages.ActiveRun):
        assert set(model.model_fields) <= spans


def test_the_suites_of_the_benchmark() -> None:
    cells = [row[0] for row in rows(read("docs/benchmarks/README.md"))]
    assert [cell.strip("`") for cell in cells if cell] == list(SUITES)


def test_the_limits_of_a_transfer_manager() -> None:
    limits = genie_transport.Limits()
    table = {row[0].strip("`"): row[1] for row in rows(section("docs/transports.md", "## Limits"))}
    assert table == {
        "chunk_bytes": f"{limits.chunk_bytes >> 20} MiB",
        "window_bytes": f"{limits.window_bytes >> 20} MiB",
        "queue": f"{limits.queue}",
        "stall_timeout": f"{limits.stall_timeout:g} s",
    }


@pytest.mark.parametrize(
    "contract",
    ["DMAHandle", "TransferFuture", "TransferManager", "Transport"],
)
def test_the_contracts_of_the_data_plane(contract: str) -> None:
    titles = {"Transport": "## Writing a transport"}
    text = section("docs/transports.md", titles.get(contract, "## Contracts"))
    kind = getattr(genie_transport, contract)
    public = {member for member in vars(kind) if not member.startswith("_")}
    named = {re.match(r"\w+", span)[0] for span in code_spans(text) if re.match(r"\w+", span)}  # type: ignore[index]
    assert public - named <= {"epoch", "op_id", "length", "path", "attempt"}
