"""The first scheduler: one device, or the stages that the spec names; the cut follows dataflow."""

from genie.schedule.entries import Scheduled, schedule_entries
from genie.schedule.placement import Placed, place
from genie.schedule.segments import Segment, cut
from genie.schedule.steps import Lying, Schedule, schedule

__all__ = [
    "Lying",
    "Placed",
    "Schedule",
    "Scheduled",
    "Segment",
    "cut",
    "place",
    "schedule",
    "schedule_entries",
]
