"""What the spec tests share: a valid spec, and rendered errors as files under golden/."""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from syrupy.location import PyTestLocation

from genie.cli.render import render_error
from genie.spec import load_spec
from genie_schemas.errors import GenieError

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "spec"


class ErrorFile(SingleFileSnapshotExtension):
    """One rendered error a file: golden/errors/spec/NAME.txt."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        return str(GOLDEN)

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: int | str = 0) -> str:
        return str(index)


@pytest.fixture
def golden(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(ErrorFile)


@pytest.fixture
def spec_text() -> str:
    return (Path(__file__).parent / "valid.yaml").read_text()


@pytest.fixture
def toml_text() -> str:
    return (Path(__file__).parent / "valid.toml").read_text()


class Specs:
    """Writes specs into the working directory, so that messages hold relative names only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str | bytes) -> Path:
        path = Path(name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def error(
        self, name: str, content: str | bytes, settings: dict[str, str] | None = None
    ) -> GenieError:
        path = self.write(name, content)
        with pytest.raises(GenieError) as caught:
            load_spec(path, settings or {})
        return caught.value

    def rendered(
        self, name: str, content: str | bytes, settings: dict[str, str] | None = None
    ) -> str:
        return render_error(self.error(name, content, settings), colour=False) + "\n"


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Specs:
    monkeypatch.chdir(tmp_path)
    return Specs(tmp_path)
