"""Jinja2 inside scalars, rendered after parsing.

Rendering the whole file first would lose line numbers, and a value could then add keys and lists.
Here a value can only become another scalar. Templates are rendered in a child process with limits
(`_render_child.py`); without a template in the spec no process is started and Jinja2 is not loaded.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from genie.spec.document import ListNode, Node, Report, Scalar, ScalarNode, Span, quoted
from genie.spec.scalars import resolve, unusable
from genie_schemas.errors import GenieError, InternalError

__all__ = ["Rendering", "render"]

_CPU_SECONDS = 2
_MEMORY_BYTES = 256 * 1024**2
_OUTPUT_CHARS = 1024**2
_WATCHDOG_SECONDS = 30  # only a stopped or starved child takes this long: processor time ends first
_MARKS = ("{{", "{%", "{#")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def _templates(node: Node, seen: set[int]) -> Iterator[ScalarNode]:
    # An aliased node is rendered once: `seen` also keeps the walk linear.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, ScalarNode):
        if isinstance(node.value, str) and any(mark in node.value for mark in _MARKS):
            yield node
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _templates(item, seen)
    else:
        for entry in node.entries:
            yield from _templates(entry.value, seen)


def _typed(text: str) -> str | int | float | bool:
    """A --set value for use in expressions: typed only where that loses nothing of the text."""
    value = resolve(text)
    if isinstance(value, bool) or (isinstance(value, int | float) and str(value) == text):
        return value
    return text


def _run_child(templates: list[str], variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answers of the child; fewer than templates when it was stopped at a limit."""
    request = {
        "templates": templates,
        "variables": dict(variables),
        "limits": {
            "cpu_s": _CPU_SECONDS,
            "memory_bytes": _MEMORY_BYTES,
            "output_chars": _OUTPUT_CHARS,
        },
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "genie.spec._render_child"],
            input=json.dumps(request),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8"},
            timeout=_WATCHDOG_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return []
    lines = [line for line in done.stdout.splitlines(keepends=True) if line.endswith("\n")]
    stopped = done.returncode in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGSEGV)
    if len(lines) < len(templates) and not stopped and "MemoryError" not in done.stderr:
        raise InternalError(
            f"the template renderer ended with status {done.returncode}: {done.stderr[-500:]}"
        )
    return [json.loads(line) for line in lines]


def _unused(settings: Mapping[str, str], used: set[str]) -> GenieError | None:
    for name in settings:
        if name not in used:
            close = get_close_matches(name, used, n=1)
            return GenieError(
                "GEN0124",
                f"--set {name}: no template of the spec uses {name!r}",
                remedy=f"did you mean {close[0]!r}?"
                if close
                else f"the spec uses: {', '.join(sorted(used))}"
                if used
                else f'write "{{{{ {name} }}}}" where the value belongs',
            )
    return None


def _report_failure(
    report: Report, node: ScalarNode, answer: Mapping[str, Any], settings: Mapping[str, str]
) -> None:
    if "limit" in answer:
        limit = {
            "output": f"renders to more than {_OUTPUT_CHARS // 1024**2} MiB of text",
            "memory": f"needs more than {_MEMORY_BYTES // 1024**2} MiB of memory",
            "time": f"needs more than {_CPU_SECONDS} s",
        }[str(answer["limit"])]
        report.add("GEN0123", f"the template {limit}", node.span, remedy="make it simpler")
    elif answer.get("undefined"):
        name = str(answer["undefined"])
        text = report.source.text[node.span.start : node.span.end]
        found = re.search(rf"\b{re.escape(name)}\b", text)
        at = node.span
        if found is not None:
            at = Span(node.span.start + found.start(), node.span.start + found.end())
        close = get_close_matches(name, settings, n=1)
        report.add(
            "GEN0121",
            f"the template uses {quoted(name)}, which has no value",
            at,
            remedy=f"did you mean {close[0]!r}?" if close else f"pass --set {name}=VALUE",
        )
    else:
        message = " ".join(str(answer.get("message", "")).split())
        report.add(
            "GEN0122",
            f"the template cannot be rendered: {message}",
            node.span,
            remedy="templates see the --set variables and range(), and give text or numbers",
        )


@dataclass(frozen=True)
class Rendering:
    """What the templates of a file became, by node."""

    values: dict[ScalarNode, Scalar]  # read by the rules for plain scalars
    texts: dict[ScalarNode, str]  # the same as text, for keys that want text
    unused: GenieError | None  # a setting that no template uses


def render(root: Node, settings: Mapping[str, str], report: Report) -> Rendering:
    """Render all scalars under `root` that hold a template; failures go to the report.

    What was rendered is read by the rules for plain YAML scalars, so "{{ width }}" with width=32
    becomes the number 32; a template that renders to nothing becomes empty text.

    Raises:
        GenieError: GEN0124, a name in `settings` is no identifier.
    """
    for name in settings:
        if not _NAME.fullmatch(name):
            raise GenieError(
                "GEN0124",
                f"--set {quoted(name)}: not the name of a variable",
                remedy="use letters, digits and _, as in --set width=32",
            )
    nodes = list(_templates(root, set()))
    variables = {name: _typed(text) for name, text in settings.items()}
    answers = _run_child([str(node.value) for node in nodes], variables) if nodes else []
    if len(answers) < len(nodes):
        answers.append({"limit": "time"})

    values: dict[ScalarNode, Scalar] = {}
    texts: dict[ScalarNode, str] = {}
    used: set[str] = set()
    failed = False
    for node, answer in zip(nodes, answers, strict=False):
        used.update(answer.get("used", ()))
        if "text" not in answer:
            failed = True
            _report_failure(report, node, answer, settings)
            continue
        text = str(answer["text"])
        value = resolve(text) if text else text
        why = unusable(value)
        if why is not None:
            failed = True
            report.add(
                "GEN0109",
                f"the template renders to {quoted(text)}: {why}",
                node.span,
                remedy="render another value",
            )
            value = text
        values[node], texts[node] = value, text
    if len(answers) < len(nodes):
        report.raise_found()  # what comes after the runaway template has no values to check
    # A template that failed may be the one that uses the setting.
    return Rendering(values, texts, None if failed else _unused(settings, used))
