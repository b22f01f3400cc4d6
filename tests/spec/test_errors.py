"""Every error of a spec as a user reads it, kept under golden/errors/spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genie.spec import load_spec
from genie_schemas.errors import GenieError, GenieErrors

# syrupy wants the test's name in the path; a golden file is named for the error instead.
pytestmark = pytest.mark.filterwarnings("ignore:\\nCan not relate snapshot:UserWarning")

# name → replacements in the valid spec; the golden file of the same name shows the error.
EDITS: dict[str, list[tuple[str, str]]] = {
    "unknown-key": [("workload:", "workloda:")],
    "unknown-key-nested": [("entry:", "entri:"), ("dtype:", "dtyp:")],
    "unknown-key-parenthesis": [
        ("genie: 1", "(genie: 1"),
        ("workload: auto", "placement: {(auto): 1}"),
    ],
    "merge-key": [("  entry: build", "  <<: {entry: build}")],
    "missing-key": [("name: small-residual\n", ""), ("dtype: float32, ", "")],
    "wrong-type": [("max: 8", "max: eight")],
    "wrong-type-list": [("{min: 1, max: 8, example: 2}", "[1, 8]")],
    "wrong-type-empty": [("{min: 1, max: 8, example: 2}", "")],
    "wrong-type-quoted": [("max: 8", 'max: "8"')],
    "wrong-type-shape": [("[batch, 3,", "[batch, 3.5,")],
    "unknown-dim": [("[batch,", "[bacth,")],
    "undeclared-dim": [("[batch, 3,", "[batch, height,")],
    "unused-dim": [("[batch,", "[4,")],
    "dim-order": [("min: 1, max: 8", "min: 8, max: 4")],
    "dim-constant": [("min: 1, max: 8, example: 2", "min: 8, max: 8")],
    "dim-example-one": [("example: 2", "example: 1")],
    "dim-example-outside": [("example: 2", "example: 9")],
    "dim-keyword": [("  batch: {", "  class: {max: 3}\n  batch: {")],
    "shape-name": [("[batch, 3,", "[batch, a-b,")],
    "shape-negative": [("[batch, 3,", "[batch, -3,")],
    "dtype": [("float32", "fp32")],
    "policy-name": [("workload: auto", "workload: auto\npolicies: {nightly: {max_attempts: 2}}")],
    "workload": [("workload: auto", "workload: visoin")],
    "name": [("small-residual", "../etc/passwd")],
    "version-newer": [("genie: 1", "genie: 2")],
    "version-type": [("genie: 1", "genie: true")],
    "weights-absolute": [("entry: build", "entry: build\n  weights: /w/net.safetensors")],
    "weights-pickle": [("entry: build", "entry: build\n  weights: net.pt")],
    "tag": [("width: 16", "width: !!python/object/apply:os.system ['true']")],
    "tag-local": [("width: 16", "width: !secret abc")],
    "duplicate-key": [("workload: auto", "workload: auto\nname: again")],
    "alias-unknown": [("width: 16", "width: *nothing")],
    "alias-cycle": [("args: {width: 16, depth: 3}", "args: &a {width: *a}")],
    "second-document": [("dims:", "---\ndims:")],
    "key-not-text": [("width: 16", "[1, 2]: 16")],
    "number-too-large": [("width: 16", "width: 123456789012345678901234567890")],
    "number-infinite": [("width: 16", "width: .inf")],
    "tab": [("  entry:", "\tentry:")],
    "quote-open": [("small-residual", '"small-residual')],
    "bad-escape": [("small-residual", '"\\U00110000"')],
    "control-character": [("small-residual", "small\x07residual")],
    "escape-sequence": [("workload: auto", 'workload: "\\e[31mauto"')],
    "long-line": [("width: 16", f"width: [{'0, ' * 60}oops: 1, {'0, ' * 60}], widht: !x 1")],
    "device-unknown": [
        (
            "dims:",
            "devices: [{id: gpu0}]\nplacement:\n  stages: [{device: gpu1, modules: [a]}]\ndims:",
        )
    ],
    "device-undeclared": [("dims:", "placement: {stages: [{device: g, modules: [a]}]}\ndims:")],
    "device-twice": [("dims:", "devices: [{id: d0}, {id: d0, memory: 2GiB}]\ndims:")],
    "device-memory": [("dims:", "devices: [{id: d0, memory: 2 gigs}]\ndims:")],
    "devices-none": [("dims:", "devices: []\ndims:")],
    "module-twice": [
        (
            "dims:",
            "placement:\n  stages:\n    - {device: d0, modules: [a]}\n"
            "    - {device: d0, modules: [b, a]}\ndims:",
        )
    ],
    "module-path": [("dims:", "placement: {stages: [{device: d0, modules: [a..b]}]}\ndims:")],
    "placement-word": [("dims:", "placement: automatic\ndims:")],
    "placement-type": [("dims:", "placement: [d0]\ndims:")],
    "policy": [
        (
            "dims:",
            "policies: {default: {max_attempts: 9, timeout: 3 sec, backoff: 5,"
            " retry_on: [GEN9999]}}\ndims:",
        )
    ],
    "bounds-float": [("dtype: float32,", "dtype: float32, high: 10,")],
    "bounds-range": [("dtype: float32,", "dtype: uint8, high: 1000,")],
    "template-unquoted": [("width: 16", "width: {{ width }}")],
    "template-undefined": [("width: 16", 'width: "{{ width }}"')],
    "template-syntax": [("width: 16", 'width: "{{ width"')],
    "template-include": [("width: 16", "width: \"{% include '/etc/passwd' %}\"")],
    "template-escape": [("width: 16", "width: \"{{ ''.__class__.__mro__ }}\"")],
    "template-object": [("width: 16", 'width: "{{ range }}"')],
    "template-memory": [("width: 16", "width: \"{{ 'a' * 10**10 }}\"")],
    "template-output": [("width: 16", "width: \"{{ 'a' * 2**21 }}\"")],
    "template-number": [("width: 16", 'width: "{{ 10**30 }}"')],
    "several": [
        ("workload:", "workloda:"),
        ("[batch,", "[bacth,"),
        ("max: 8", "max: eight"),
        ("width: 16", "width: !!int 16"),
        ("depth: 3", 'depth: "{{ depth }}"'),
    ],
}

TOML_EDITS: dict[str, list[tuple[str, str]]] = {
    "toml-unknown-key": [("workload", "workloda")],
    "toml-wrong-type": [("max = 8", 'max = "8"')],
    "toml-unknown-dim": [('["batch"', '["bacth"')],
    "toml-missing-key": [('dtype = "float32"\n', "")],
    "toml-date": [("width = 16", "width = 1979-05-27 07:32:00")],
    "toml-syntax": [('name = "small-residual"', 'name = "small-residual')],
    "toml-duplicate": [('workload = "auto"', 'workload = "auto"\nname = "again"')],
    "toml-template": [("width = 16", 'width = "{{ width }}"')],
    "toml-tables": [
        ("[dims]", '[[devices]]\nid = "d0"\n\n[[devices]]\nid = "d0"\nmem = 3\n\n[dims]'),
        ("[batch, ", "[batch, "),
    ],
}

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
)

WHOLE: dict[str, tuple[str, str | bytes]] = {
    "alias-bomb": ("bomb.yaml", BOMB),
    "alias-depth": (
        "depth.yaml",
        "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(80)),
    ),
    "deep": ("deep.yaml", "genie: " + "[" * 500 + "]" * 500 + "\n"),
    "deep-block": ("deep.yaml", "- " * 500 + "x\n"),
    "empty": ("empty.yaml", "# nothing\n"),
    "scalar": ("scalar.yaml", "hello\n"),
    "not-utf8": ("latin.yaml", "genie: 1\nname: caf\xe9\n".encode("latin-1")),
    "binary": ("weights.yaml", b"\x00\x01\x02\x03"),
    "too-large": ("large.yaml", b"# " + b"x" * 300_000),
    "toml-deep": ("deep.toml", "a = " + "[" * 500 + "]" * 500 + "\n"),
    "toml-dotted": ("dots.toml", "a" + ".a" * 100_000 + " = 1\n"),
    "toml-empty": ("empty.toml", ""),
}


def _edited(text: str, edits: list[tuple[str, str]]) -> str:
    for old, new in edits:
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("name", EDITS)
def test_yaml(name: str, spec_text: str, specs: Any, golden: Any) -> None:
    edited = _edited(spec_text, EDITS[name])
    assert edited != spec_text
    assert specs.rendered("vision.yaml", edited) == golden(name=name)


@pytest.mark.parametrize("name", TOML_EDITS)
def test_toml(name: str, toml_text: str, specs: Any, golden: Any) -> None:
    assert specs.rendered("vision.toml", _edited(toml_text, TOML_EDITS[name])) == golden(name=name)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_file(name: str, specs: Any, golden: Any) -> None:
    file, content = WHOLE[name]
    assert specs.rendered(file, content) == golden(name=name)


def test_missing_file_suggests_a_neighbour(specs: Any, spec_text: str, golden: Any) -> None:
    specs.write("vision.yaml", spec_text)
    with pytest.raises(GenieError) as caught:
        load_spec(Path("vison.yaml"), {})
    from genie.cli.render import render_error

    assert render_error(caught.value, colour=False) + "\n" == golden(name="missing-file")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("path", ["", ".", "nul\0byte.yaml", "x" * 300 + ".yaml"])
def test_unreadable_paths_are_errors(path: str, specs: Any) -> None:
    with pytest.raises(GenieError) as caught:
        load_spec(Path(path), {})
    assert caught.value.code == "GEN0101"


def test_unused_setting(specs: Any, spec_text: str, golden: Any) -> None:
    templated = spec_text.replace("16", '"{{ width | default(16) }}"')
    text = specs.rendered("vision.yaml", templated, {"widht": "32"})
    assert text == golden(name="setting-unused")


@pytest.mark.parametrize("name", ["", "a-b", "1a", "é"])
def test_setting_names_are_identifiers(name: str, specs: Any, spec_text: str) -> None:
    error = specs.error("vision.yaml", spec_text, {name: "1"})
    assert (error.code, error.exit_code) == ("GEN0124", 2)


def test_a_runaway_template_is_stopped_and_named(specs: Any, spec_text: str) -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    edited = spec_text.replace("16", f'"{loop}"').replace("max: 8", 'max: "{{ 4 + 4 }}"')
    error = specs.error("vision.yaml", edited)
    assert [e.code for e in error.errors] == ["GEN0123"]
    assert error.place.line == 6


def test_errors_are_capped_and_counted(specs: Any, spec_text: str) -> None:
    edited = spec_text + "".join(f"extra{i}: 1\n" for i in range(3000))
    error = specs.error("vision.yaml", edited)
    assert isinstance(error, GenieErrors)
    assert len(error.errors) == 50
    assert error.context["further_errors"] > 900
    assert "the first 50 shown" in specs.rendered("vision.yaml", edited)


def test_errors_come_in_the_order_of_the_file(specs: Any, spec_text: str) -> None:
    error = specs.error("vision.yaml", _edited(spec_text, EDITS["several"]))
    positions = [(e.place.line, e.place.column) for e in error.errors]
    assert positions == sorted(positions)
    assert len(positions) == 5
