"""The user's line of a captured call, found only when an error needs it.

Export keeps no stack traces unless asked, because they are slow and hold paths. When an error must
be located, the model is exported once more with traces on, and the same call is looked up.
"""

from __future__ import annotations

import linecache
import re
import warnings
from pathlib import Path

from torch import fx, nn
from torch.fx.experimental.proxy_tensor import PythonKeyTracer

from genie_schemas.errors import GenieError, Place
from genie_schemas.spec import Spec

_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class Locator:
    """Callable: fx node → the innermost line of the user's file that made it, or None."""

    def __init__(self, model: nn.Module, spec: Spec, path: Path, shown: str) -> None:
        self.model = model
        self.spec = spec
        self.path = path.resolve()
        self.shown = shown

    def __call__(self, node: fx.Node) -> Place | None:
        """Export again with traces on and look the call up."""
        from genie.capture.exporter import export

        before = PythonKeyTracer.record_stack_traces
        PythonKeyTracer.record_stack_traces = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = export(self.model, self.spec, self.path, self.shown)
        except (GenieError, RuntimeError):
            return None
        finally:
            PythonKeyTracer.record_stack_traces = before
        for other in program.graph.nodes:
            if other.name == node.name and other.target == node.target:
                return self._innermost(other.meta.get("stack_trace") or "")
        return None

    def _innermost(self, trace: str) -> Place | None:
        lines = [int(n) for f, n in _FRAME.findall(trace) if Path(f).resolve() == self.path]
        if not lines:
            return None
        text = linecache.getline(str(self.path), lines[-1]).rstrip("\n")
        indent = len(text) - len(text.lstrip())
        return Place(self.shown, lines[-1], indent + 1, text, max(1, len(text) - indent))
