"""The child process of `genie compile`: imports the user's model and captures it.

It reads a request from standard input and writes into the request's folder: `entries.json` and,
when they must be written anew, `constants.safetensors`; or `error.json`. Progress goes line by line
to the file descriptor that the request names. Whatever the user's code prints goes to standard
error.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.errors.user_code import error_text


def main() -> int:
    """Answer one request; 0 when `entries.json` was written, 1 when `error.json` was."""
    # Ctrl-C reaches the whole terminal: the parent ends this process, without a second traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = json.loads(sys.stdin.read())
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - the user's code may read it
    os.dup2(2, 1)
    folder = Path(request["folder"])
    try:
        _capture(request, folder)
    except GenieErrors as error:
        _write(folder / "error.json", [e.to_json() for e in error.errors])
        return 1
    except GenieError as error:
        _write(folder / "error.json", [error.to_json()])
        return 1
    except Exception as error:
        # What the user's code raised was named above: this is a bug of ours, for the parent to say.
        if os.environ.get("GENIE_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        _write(folder / "bug.json", f"{type(error).__name__}: {error_text(error)}")
        return 1
    return 0


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


@contextmanager
def _imports() -> Iterator[None]:
    """Modules are not looked through for garbage, now or later: it takes long and finds none."""
    gc.collect()  # what the model left behind is not to stay
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _capture(request: dict[str, Any], folder: Path) -> None:
    from genie_schemas.spec import Spec

    def stage(name: str) -> None:
        os.write(request["progress_fd"], f"{name}\n".encode())

    spec = Spec.model_validate_json(request["spec"])
    path, shown = Path(request["model"]), request["shown"]
    weights = Path(request["weights"]) if request["weights"] else None
    stage("model")
    with _imports():
        from genie.model.loader import load_model

    model = load_model(path, shown, spec, weights, mapped=True)
    stage("capture")
    with _imports():
        from genie.capture.entries import capture_entries
        from genie.capture.store import same_tensors, save
        from genie.graph.entries import entries_data

    entries, tensors = capture_entries(model, spec, path, shown, request["spec_file"])
    stage("constants")
    if weights is None or not same_tensors(weights, entries.constants.values()):
        save(tensors, folder / "constants.safetensors")
    _write(folder / "entries.json", entries_data(entries))


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Nothing of torch's needs to be torn down: leaving at once saves half a second a compilation.
    os._exit(status)
