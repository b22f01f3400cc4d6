"""The command line.

To add a command, write `genie/cli/NAME.py` with a `click.Command` named `command` and enter it in
the table in `genie.cli.main`; the module is imported only when the command runs. In a command:

- return None or an exit status (`genie_schemas.errors.ExitCode`);
- raise `GenieError` for whatever went wrong. `genie.cli.errors` renders it on stderr, prints
  `{"error": …}` on stdout when --json was given, and turns its code into the exit status. Never
  print an error or call sys.exit;
- write results to stdout (`click.echo`, `genie.cli.common.print_json`), all else to stderr;
- take the shared options, --json and --set, from `genie.cli.common`.

Every option can also be set by GENIE_<COMMAND>_<OPTION> and in genie.toml (`genie.cli.config`).
"""
