"""Genie: compile PyTorch models into reviewable plans, and run them on any machine."""

__version__ = "0.1.0"
"""Version of this distribution, as pyproject.toml has it."""

__all__ = ["__version__"]
