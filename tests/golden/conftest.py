"""What loads a model in the golden tests shares what it imports."""

from __future__ import annotations

from tests.warm import warm, warm_interpreter

__all__ = ["warm", "warm_interpreter"]
