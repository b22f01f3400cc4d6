"""What the graph's parts are: its regions, its kind of workload, what its values are for."""

from genie.semantics.classify import Workload, classify
from genie.semantics.regions import Region, assign_regions

__all__ = ["Region", "Workload", "assign_regions", "classify"]
