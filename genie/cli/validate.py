"""`genie validate`: check a spec without a model."""

from __future__ import annotations

from pathlib import Path

import click

from genie.cli.common import json_option, print_json, settings_option

__all__ = ["command"]


@click.command("validate")
@click.argument("spec", type=click.Path(path_type=Path))
@settings_option
@json_option
def command(spec: Path, settings: dict[str, str], as_json: bool) -> None:
    """Check SPEC and report everything wrong with it.

    The model is not loaded: names of modules and parameters are checked by `genie compile`. Ends
    with status 0 when the spec is valid, and with 4 when it is not.
    """
    from genie.spec import load_spec

    loaded = load_spec(spec, settings)
    content = loaded.spec
    if as_json:
        print_json(
            {
                "spec": str(spec),
                "valid": True,
                "digest": f"sha256:{loaded.digest}",
                "content": content.model_dump(mode="json", by_alias=True),
            }
        )
        return
    inputs = ", ".join(
        f"{name} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"
        for name, tensor in content.inputs.items()
    )
    dims = ", ".join(f"{name} {dim.min}..{dim.max}" for name, dim in content.dims.items())
    devices = ", ".join(f"{device.id} ({device.kind})" for device in content.devices)
    click.echo(f"{spec}: valid")
    click.echo(f"  name     {content.name}")
    click.echo(f"  inputs   {inputs}")
    if dims:
        click.echo(f"  dims     {dims}")
    click.echo(f"  devices  {devices}")
    click.echo(f"  digest   sha256:{loaded.digest}")
