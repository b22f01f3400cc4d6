"""What the graph's parts are. In this version: regions, from the module hierarchy."""

from genie.semantics.regions import Region, assign_regions

__all__ = ["Region", "assign_regions"]
