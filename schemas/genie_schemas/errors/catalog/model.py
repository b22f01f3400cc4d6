"""Error codes of this area; see the package's docstring for the ranges."""

from genie_schemas.errors._registry import ExitCode

TABLE: dict[str, tuple[str, ExitCode, str]] = {}
