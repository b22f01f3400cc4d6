"""The first scheduler: one device, or the stages that the spec names; the cut follows dataflow."""

from genie.schedule.placement import Placed, place
from genie.schedule.segments import Segment, cut
from genie.schedule.steps import Schedule, schedule

__all__ = ["Placed", "Schedule", "Segment", "cut", "place", "schedule"]
