"""What this machine can do with Genie, what is missing, and the one command that mends it.

`diagnose()` runs every probe against the support matrix (`genie_schemas.versions`). A probe reads
the machine (files below /proc and /sys, tools on PATH, child processes) and changes nothing.
torch is never imported here: a child interpreter is asked about it.
"""

from genie.doctor._check import Check
from genie.doctor._diagnose import diagnose
from genie.doctor._machine import Machine

__all__ = ["Check", "Machine", "diagnose"]
