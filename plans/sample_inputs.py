"""Write inputs that fit a spec, for `genie execute --inputs`.

    python plans/sample_inputs.py SPEC -o INPUTS.safetensors [--dim batch=4]…

The values are arbitrary but valid (token ids lie in the vocabulary) and the same everywhere.
Exit status 2 for a dimension that the spec does not have or does not allow.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from safetensors.numpy import save_file

from genie.spec import load_spec
from genie.testing.inputs import sample_inputs
from genie_schemas.errors import GenieError


def extent(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    return name, int(value)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write inputs that fit a spec.")
    parser.add_argument("spec", type=Path, metavar="SPEC")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="INPUTS.safetensors")
    parser.add_argument("--dim", type=extent, action="append", default=[], metavar="NAME=EXTENT")
    options = parser.parse_args(arguments)
    try:
        inputs = sample_inputs(load_spec(options.spec, {}).spec, dict(options.dim))
    except GenieError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    except ValueError as error:
        print(f"sample_inputs.py: {error}", file=sys.stderr)
        return 2
    save_file(inputs, options.output)
    for name, array in inputs.items():
        print(f"{name}: {array.dtype}{list(array.shape)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
