"""Small language models of the cache protocol: the one of docs/llm.md, and wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genie.capture.entries import capture_entries
from genie.model.loader import load_model
from genie.spec import load_spec

ROOT = Path(__file__).resolve().parents[2]
BUILD = """

def build():
    from genie.testing.weights import fill_

    return fill_(Speaker()).eval()
"""
SPEC = "genie: 1\nname: speaker\n"


def code() -> str:
    """The example of the page, as a model file."""
    text = (ROOT / "docs" / "llm.md").read_text(encoding="utf-8")
    block = text.split("```python\n")[1].partition("```")[0]
    return block + BUILD


def replaced(*changes: tuple[str, str]) -> str:
    """The example with other lines."""
    text = code()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def write(folder: Path, model: str, spec: str) -> None:
    """Put both files into a folder."""
    (folder / "model.py").write_text(model, encoding="utf-8")
    (folder / "spec.yaml").write_text(spec, encoding="utf-8")


def loaded(folder: Path) -> tuple[Any, Any]:
    """The module and the spec of a folder."""
    spec = load_spec(folder / "spec.yaml", {}).spec
    return load_model(folder / "model.py", "model.py", spec, None), spec


def captured(folder: Path, model: str, spec: str = SPEC) -> Any:
    """The entry points of a model file under a spec, in this process."""
    write(folder, model, spec)
    module, found = loaded(folder)
    path = folder / "model.py"
    return capture_entries(module, found, path, "model.py", "spec.yaml")[0]
