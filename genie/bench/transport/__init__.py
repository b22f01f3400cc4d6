"""The suite `transport`: every path of the data plane beside what else one would take.

Each end of a path is a process of its own (`_worker`), not pinned, held by the measuring process
(`_process`). Contenders take turns (`_rounds`), a ratio divides figures of the same round, and
every byte is verified by hash before and after what is timed.
"""
