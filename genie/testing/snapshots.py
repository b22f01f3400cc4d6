"""Golden files through syrupy: one file a snapshot, named as its author names it.

syrupy's own layout names files for tests and deletes, on update, the ones that no test claims.
Golden files are named for what they hold, several tests may share a folder, and nothing is ever
deleted: the difference between a renamed plan and a lost one is for people to see in review.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from syrupy.data import SnapshotCollections
from syrupy.extensions.base import AbstractSyrupyExtension
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

if TYPE_CHECKING:
    from syrupy.location import PyTestLocation
    from syrupy.types import SnapshotIndex

__all__ = ["golden_files"]


class _GoldenFile(SingleFileSnapshotExtension):
    """`FOLDER/NAME.EXTENSION`, NAME being the snapshot's index."""

    _write_mode = WriteMode.TEXT
    folder = Path()

    @classmethod
    def dirname(cls, *, test_location: PyTestLocation) -> str:
        return str(cls.folder)

    @classmethod
    def get_snapshot_name(cls, *, test_location: PyTestLocation, index: SnapshotIndex = 0) -> str:
        # With the test's name in it, as syrupy warns about names that it cannot relate to a test.
        return AbstractSyrupyExtension.get_snapshot_name(test_location=test_location, index=index)

    @classmethod
    def get_file_basename(cls, *, test_location: PyTestLocation, index: SnapshotIndex) -> str:
        return str(index)

    @classmethod
    def matches_test_location(
        cls, *, test_location: PyTestLocation, snapshot_location: str
    ) -> bool:
        return True

    def discover_snapshots(
        self, *, test_location: PyTestLocation, ignore_extensions: list[str] | None = None
    ) -> SnapshotCollections:
        return SnapshotCollections()


def golden_files(folder: Path, extension: str) -> type[SingleFileSnapshotExtension]:
    """A syrupy extension for the text files `folder/NAME.extension`.

    Use it as `snapshot.use_extension(golden_files(folder, "plan.json"))`, and name each snapshot:
    `assert text == golden(name="vision")`.
    """
    return type("GoldenFile", (_GoldenFile,), {"folder": folder, "file_extension": extension})
