"""The user's line of a captured call, found only when an error needs it.

Export keeps no stack traces unless asked, because they are slow and hold paths. When an error must
be located, the model is exported once more with traces on, and the same call is looked up.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from torch import fx, nn
from torch.fx.experimental.proxy_tensor import PythonKeyTracer

from genie.capture.inline import inline_regions
from genie.capture.outs import without_out
from genie_schemas.errors import GenieError, Place
from genie_schemas.errors.user_code import traced_place
from genie_schemas.spec import Spec


class Locator:
    """Callable: fx node → the innermost line of the user's own code that made it, or None."""

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
        inline_regions(program.graph_module)
        without_out(program.graph)
        names = [n.name for n in node.graph.nodes]
        # Branches and turns are graphs of their own, in which names occur again.
        graphs = [m.graph for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]
        for graph in sorted(graphs, key=lambda g: [n.name for n in g.nodes] != names):
            for other in graph.nodes:
                if other.name == node.name and other.target == node.target:
                    trace = other.meta.get("stack_trace") or ""
                    return traced_place(trace, self.path, self.shown)
        return None
