"""What a valid spec says once it is loaded, and which differences do not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from genie.spec import load_spec
from genie_schemas.spec import Spec
from genie_schemas.units import parse_duration, parse_size


def test_defaults(specs: Any) -> None:
    minimal = "genie: 1\nname: m\ninputs: {x: {dtype: int64, shape: []}}\n"
    loaded = load_spec(specs.write("m.yaml", minimal), {})
    spec = loaded.spec
    assert (spec.workload, spec.model.entry, spec.model.args) == ("auto", "build", {})
    assert [(d.id, d.kind, d.memory_bytes) for d in spec.devices] == [("d0", "any", None)]
    assert spec.placement == "auto"
    policy = spec.policies["default"]
    assert (policy.max_attempts, policy.timeout_ms, policy.backoff_ms) == (4, 30_000, 50)
    assert spec.inputs["x"].example_bounds == (0, 2)
    assert loaded.weights is None
    assert loaded.path == Path("m.yaml")


def test_everything(specs: Any) -> None:
    text = """
genie: 1
name: tower
model: {entry: make, weights: weights/tower.safetensors}
inputs:
  ids: {dtype: int64, shape: [batch, seq], high: 30522}
  mask: {dtype: bool, shape: [batch, seq]}
dims:
  batch: {max: 8}
  seq: {min: 16, max: 128}
devices:
  - {id: d0, kind: cpu, memory: 1.5GB}
  - {id: d1, kind: cuda}
placement:
  stages:
    - {device: d0, modules: [stem, blocks.0]}
    - {device: d1, modules: [head]}
objective: {minimize: latency}
policies:
  default: {max_attempts: 2, timeout: 1.5s, backoff: 0ms, retry_on: [GEN0101]}
"""
    Path("sub").mkdir()
    loaded = load_spec(specs.write("sub/tower.yaml", text), {})
    spec = loaded.spec
    assert loaded.weights == Path("sub/weights/tower.safetensors")
    assert {name: dim.example for name, dim in spec.dims.items()} == {"batch": 2, "seq": 16}
    assert spec.devices[0].memory_bytes == 1_500_000_000
    assert not isinstance(spec.placement, str)
    assert spec.placement.stages[0].modules == ("stem", "blocks.0")
    assert spec.policies["default"].timeout_ms == 1500
    assert spec.policies["default"].retry_on == ("GEN0101",)
    assert spec.inputs["ids"].example_bounds == (0, 30522)
    assert spec.inputs["mask"].example_bounds is None


def test_the_same_content_has_the_same_digest(specs: Any, spec_text: str, toml_text: str) -> None:
    digests = {
        load_spec(specs.write("a.yaml", spec_text), {}).digest,
        load_spec(
            specs.write("b.yaml", "\ufeff# comment\n" + spec_text.replace("\n", "\r\n")), {}
        ).digest,
        load_spec(specs.write("c.toml", toml_text), {}).digest,
        load_spec(specs.write("d.toml", toml_text.replace("\n", "\r\n")), {}).digest,
        load_spec(specs.write("e.yaml", spec_text.replace(", example: 2", "")), {}).digest,
        load_spec(specs.write("f.yaml", spec_text + "policies: {default: {}}\n"), {}).digest,
        load_spec(
            specs.write("g.yaml", spec_text.replace("width: 16", 'width: "{{ w }}"')), {"w": "16"}
        ).digest,
        load_spec(specs.write("h.yaml", spec_text.replace("width: 16", "width: 0x10")), {}).digest,
        load_spec(
            specs.write("i.yaml", spec_text.replace("16, depth: 3", "&w 16, depth: 3")), {}
        ).digest,
    }
    assert len(digests) == 1
    other = load_spec(specs.write("a.yaml", spec_text.replace("depth: 3", "depth: 4")), {}).digest
    assert other not in digests


def test_toml_means_what_yaml_means(specs: Any, spec_text: str, toml_text: str) -> None:
    toml = toml_text + (
        "\n[[devices]]\nid = 'd0'\n[[devices]]\nid = 'd1'\nmemory = '2GiB'\n"
        "[placement]\nstages = [\n  {device = 'd0', modules = ['a']}, # first\n"
        "  {device = 'd1', modules = [\"b\", '''c''']},\n]\n"
        "[policies.default]\n\"timeout\" = '10s'\n"
    )
    yaml = spec_text + (
        "devices: [{id: d0}, {id: d1, memory: 2GiB}]\n"
        "placement: {stages: [{device: d0, modules: [a]}, {device: d1, modules: [b, c]}]}\n"
        "policies: {default: {timeout: 10s}}\n"
    )
    one = load_spec(specs.write("a.toml", toml), {})
    two = load_spec(specs.write("a.yaml", yaml), {})
    assert one.spec == two.spec
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("template", "settings", "value"),
    [
        ("{{ w }}", {"w": "32"}, 32),
        ("{{ w * 2 }}", {"w": "16"}, 32),
        ("{{ w }}", {"w": "0.5"}, 0.5),
        ("{{ w }}", {"w": "true"}, True),
        ("{{ not w }}", {"w": "true"}, False),
        ("{{ w }}", {"w": "1.10"}, 1.1),
        ("v{{ w }}", {"w": "1.10"}, "v1.10"),
        ("{{ w }}", {"w": "a: [1, 2]"}, "a: [1, 2]"),
        ("{{ w }}", {"w": ""}, ""),
        ("{% if w > 3 %}big{% else %}small{% endif %}", {"w": "4"}, "big"),
        ("{{ w | default(7) }}", {}, 7),
        ("{{ '{{' }}", {}, "{{"),
        ("{# note #}x", {}, "x"),
        ("{{ range(3) | join('-') }}", {}, "0-1-2"),
    ],
)
def test_templates(
    template: str, settings: dict[str, str], value: object, specs: Any, spec_text: str
) -> None:
    quoted = template.replace('"', '\\"')
    text = spec_text.replace("width: 16", f'width: "{quoted}"')
    found = load_spec(specs.write("t.yaml", text), settings).spec.model.args["width"]
    assert found == value
    assert type(found) is type(value)


def test_a_value_cannot_add_structure(specs: Any, spec_text: str) -> None:
    text = spec_text.replace("small-residual", '"{{ n }}"')
    error = specs.error("t.yaml", text, {"n": "x\ndevices: [{id: evil}]"})
    assert error.code == "GEN0115"
    assert error.place.line == 2


def test_text_keys_take_a_template_that_renders_to_digits(specs: Any, spec_text: str) -> None:
    text = spec_text.replace("small-residual", '"{{ n }}"')
    assert load_spec(specs.write("t.yaml", text), {"n": "42"}).spec.name == "42"


def test_a_template_in_an_aliased_value_is_rendered_once(specs: Any, spec_text: str) -> None:
    text = spec_text.replace("width: 16, depth: 3", 'a: &a ["{{ w }}"], b: *a')
    args = load_spec(specs.write("t.yaml", text), {"w": "5"}).spec.model.args
    assert args == {"a": [5], "b": [5]}


def test_yaml_is_1_2(specs: Any, spec_text: str) -> None:
    values = "{a: no, b: 012, c: 0o17, d: 1e3, e: ~, f: TRUE, g: 1_000, h: 2001-01-01, i: '7'}"
    text = spec_text.replace("{width: 16, depth: 3}", values)
    args = load_spec(specs.write("t.yaml", text), {}).spec.model.args
    assert args == {
        "a": "no", "b": 12, "c": 15, "d": 1000.0, "e": None,
        "f": True, "g": "1_000", "h": "2001-01-01", "i": "7",
    }  # fmt: skip


def test_the_model_alone_refuses_contradictions() -> None:
    with pytest.raises(ValidationError, match="'batch' is not declared"):
        Spec.model_validate(
            {"genie": 1, "name": "x", "inputs": {"a": {"dtype": "bool", "shape": ["batch"]}}}
        )


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("2GiB", 2**31), ("1.5 GB", 1_500_000_000), ("1.1GB", 1_100_000_000), (7, 7)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "2", "2gib", "-1GiB", "1.5B", "0GiB", "9999999999TiB", 0, 2**63]
)
def test_unusable_sizes(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"size|whole number"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "duration"),
    [("50ms", 50), ("30s", 30_000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)],
)
def test_durations(text: str, duration: int) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "30", "30 sec", "0.5ms", "s"])
def test_unusable_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|whole number"):
        parse_duration(text)
