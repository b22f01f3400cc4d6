"""Specs: reading, rendering and checking the file that says what is to be compiled.

`load_spec` is the way in. Configuration files of the command line are read with the same readers,
so that they have the same limits and the same located errors.
"""

from genie.spec.loader import LoadedSpec, load_spec

__all__ = ["LoadedSpec", "load_spec"]
