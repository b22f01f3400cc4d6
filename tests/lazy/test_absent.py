"""Where the extension is not built, importing the device says so, and how to mend it."""

from __future__ import annotations

import subprocess
import sys


def test_a_missing_extension_is_a_typed_error_with_a_remedy() -> None:
    code = (
        "import sys\n"
        "sys.modules['genie.lazy._lazy'] = None\n"
        "from genie_schemas.errors import GenieError\n"
        "try:\n"
        "    import genie.lazy\n"
        "except GenieError as error:\n"
        "    print(error.code, error.remedy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.startswith("GEN0262 install torch first"), done.stderr[-2000:]
