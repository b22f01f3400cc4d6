"""`genie bench`: the figures that Genie promises, measured on this machine.

A suite is a function `(quick) -> rows`. Whatever is compared runs alternately in one process or one
sitting, and a row's ratio is its value divided by the baseline's value of the same run. Nothing
here judges: limits are in docs/benchmarks/.
"""

from genie.bench.report import Report, Row
from genie.bench.suites import SUITES, run_suites

__all__ = ["SUITES", "Report", "Row", "run_suites"]
