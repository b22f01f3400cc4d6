"""The labelled corpus: `ENTRIES` by name, `held_out(ENTRIES)` the side that no pattern was made on.

Importing it registers every model and builds none.
"""

from tests.semantics.corpus import (  # noqa: F401 - each registers its models
    joined,
    language,
    own,
    packages,
    ranking,
    seeing,
    sequences,
    series,
    sight,
    sound,
    space,
    together,
    vectors,
)
from tests.semantics.corpus.packages import MISSING
from tests.semantics.corpus.registry import (
    ENTRIES,
    HELD_OUT,
    KINDS,
    SOURCES,
    Entry,
    drawn,
    held_out,
)

__all__ = [
    "ENTRIES",
    "HELD_OUT",
    "KINDS",
    "MISSING",
    "SOURCES",
    "Entry",
    "drawn",
    "held_out",
]
