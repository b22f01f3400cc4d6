"""Renders templates under resource limits; run as a program of its own, never imported.

stdin: {"templates": [text], "variables": {name: value}, "limits": {cpu_s, memory_bytes,
output_chars}}. stdout: one JSON line for each template, in order, written before the next one is
begun, so that the parent knows which template a killed child was busy with.

The sandbox of Jinja keeps templates away from Python objects but not from time and memory: hence
the limits of the operating system.
"""

import json
import re
import resource
import sys
from collections.abc import Mapping
from typing import Any


def _limit(cpu_s: int, memory_bytes: int) -> None:
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))


def _plain(value: Any) -> Any:
    from jinja2 import Undefined

    # Other objects would print their address, which differs from run to run.
    if isinstance(value, str | int | float | Undefined):
        return value
    raise TypeError(f"an expression gives {type(value).__name__}, which is no text or number")


def main() -> None:
    """Answer the one request on stdin."""
    request = json.load(sys.stdin)
    limits = request["limits"]
    from jinja2 import StrictUndefined, TemplateError, UndefinedError, meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

    _limit(limits["cpu_s"], limits["memory_bytes"])
    env = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_plain, keep_trailing_newline=True, cache_size=0
    )
    env.globals.clear()
    env.globals["range"] = safe_range
    del env.filters["random"]  # a spec renders to the same text every time
    variables: Mapping[str, Any] = request["variables"]
    left = int(limits["output_chars"])

    for source in request["templates"]:
        answer: dict[str, Any]
        try:
            used = sorted(meta.find_undeclared_variables(env.parse(source)) - {"range"})
            pieces: list[str] = []
            for piece in env.from_string(source).generate(**variables):
                left -= len(piece)
                if left < 0:
                    break
                pieces.append(piece)
            answer = {"text": "".join(pieces), "used": used} if left >= 0 else {"limit": "output"}
        except UndefinedError as error:
            name = re.match(r"'(\w+)' is undefined", error.message or "")
            answer = {"undefined": name[1] if name else None, "message": str(error), "used": used}
        except MemoryError:
            answer = {"limit": "memory"}
        except TemplateError as error:  # the sandbox's SecurityError is one, too
            answer = {"message": str(error)}
        except Exception as error:
            # A template may raise anything: "a" + 1 is a TypeError, 1/0 a ZeroDivisionError.
            answer = {"message": f"{type(error).__name__}: {error}"}
        if "message" in answer:
            answer["message"] = answer["message"][:300]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
