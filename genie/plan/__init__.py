"""From a schedule to the ExecutionPlan, and what people do with plans: show, diff."""

from genie.plan.emit import Emitted, emit

__all__ = ["Emitted", "emit"]
