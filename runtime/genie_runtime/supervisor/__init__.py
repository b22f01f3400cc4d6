"""Supervision of executor processes: start, watch, restart, restore. Never imports torch.

A worker that dies or stops answering costs the runs that were on it one attempt each, and nothing
else: it is started again, gets its arenas at once and plans and constants when they are needed.
"""

from genie_runtime.supervisor._executor import WorkerExecutor

__all__ = ["WorkerExecutor"]
