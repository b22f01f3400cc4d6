"""Running plans: embedded in this process, or on daemons.

from genie.client import connect

with connect() as session:                      # or connect("unix:///run/genie.sock")
    session.install("digits.plan.json")
    result = session.run({"image": array})
    result.outputs["logits"]
"""

from genie.client.link import LoadedPlan
from genie.client.opening import connect
from genie.client.result import Generated, RunResult, Timing
from genie.client.sequence import Sequence
from genie.client.session import Session, load_plan
from genie.client.tensors import Tensor

__all__ = [
    "Generated",
    "LoadedPlan",
    "RunResult",
    "Sequence",
    "Session",
    "Tensor",
    "Timing",
    "connect",
    "load_plan",
]
