"""The ucx path: whether it is there, and what it may run on.

At unix:// endpoints UCX moves bytes through shared memory that only processes of one user can
open. At tcp:// endpoints it uses the network, RDMA first. There UCX itself trusts whoever reaches
its ports: a stranger who does can have it write anywhere in this process, whatever the frames are
protected with. So both sides must declare the network, with all hosts and users on it, trusted.
UCX is never chosen when no path is named.
"""

from __future__ import annotations

import functools
import importlib
import os
from types import ModuleType

from genie_transport._errors import setup_error
from genie_transport._wires import Wire, core

__all__ = ["found", "wires"]

# Read when the libraries are loaded. UCX would otherwise take over the signals of crashes, patch
# mmap in the whole process (for a cache of registrations, of which none is needed here), start a
# thread for a file system, and print to stdout.
_SETTINGS = {
    "UCX_HANDLE_ERRORS": "none",
    "UCX_MEM_EVENTS": "no",
    "UCX_MEM_MMAP_HOOK_MODE": "none",
    "UCX_VFS_ENABLE": "n",
    "UCX_LOG_LEVEL": "fatal",
    "UCX_WARN_UNUSED_ENV_VARS": "n",
}


@functools.cache
def found() -> tuple[ModuleType | None, str]:
    """The module that speaks UCX, loaded now; or None and why it cannot be used."""
    module, why = core()
    if module is None:
        return None, why
    added = [name for name in _SETTINGS if name not in os.environ]
    os.environ.update({name: _SETTINGS[name] for name in added})
    try:
        return importlib.import_module("genie_transport._ucx"), ""
    except ModuleNotFoundError:
        return None, "Genie was built without UCX"
    except ImportError as error:
        return None, str(error)
    finally:
        for name in added:
            del os.environ[name]


def wires(kind: str, *, encrypt: bool, trusted: bool) -> Wire:
    """What this side accepts when the ucx path was named at an endpoint of `kind`.

    Raises GenieError GEN0665 (not built, or its libraries are missing) and GEN0666 (the network
    was not declared trusted).
    """
    module, why = found()
    if module is None:
        raise setup_error("GEN0665", "the ucx path is not there", at="ucx", cause=why)
    if kind != "unix" and not trusted:
        raise setup_error(
            "GEN0666", "UCX over a network needs that network declared trusted", at="ucx"
        )
    return Wire.UCX_AEAD if encrypt else Wire.UCX | Wire.UCX_AEAD
