"""Genie: compile PyTorch models into reviewable plans, and run them on any machine."""

from genie_schemas.versions import __version__

__all__ = ["__version__"]
