"""`genie schema`: the JSON Schemas, for editors and other tools."""

from __future__ import annotations

import click

from genie.cli.common import print_json

__all__ = ["command"]


@click.command("schema")
@click.argument("document", type=click.Choice(["spec", "plan"]))
def command(document: str) -> None:
    """Print the JSON Schema of a spec or a plan.

    Editors use it to check and complete a spec while it is written.
    """
    if document == "spec":
        from genie_schemas.spec import spec_json_schema

        print_json(spec_json_schema())
        return
    from genie_schemas.plan import plan_json_schema

    print_json(plan_json_schema())
