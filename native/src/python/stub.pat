genie_transport._core.__prefix__:
    from typing import Any
