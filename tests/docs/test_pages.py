"""The pages hang together: links, error codes, exit statuses, what they say of files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from genie_schemas.errors import CODES, ExitCode
from tests.docs.pages import LINKED, PAGES, ROOT, code_spans, name, read, rows, section

EXIT_TABLES = [
    ("README.md", "## Exit status"),
    ("docs/cli.md", "## Exit status"),
    ("docs/errors.md", "# Error codes"),
]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#{1,6} (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head) for head in heads]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        there = file.exists()
        if there and anchor:
            there = anchor in anchors(file.read_text(encoding="utf-8"))
        if not there:
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_error_codes_exist(page: Path) -> None:
    mentioned = set(re.findall(r"\bGEN\d{4}\b", page.read_text(encoding="utf-8")))
    # The heading of a range names its first number, which need not be taken.
    ranges = set(re.findall(r"^(GEN\d{4}) and up:", page.read_text(encoding="utf-8"), re.M))
    assert mentioned - ranges <= set(CODES)


def test_every_error_code_is_on_its_page_once() -> None:
    heads = re.findall(r"^### (GEN\d{4})$", read("docs/errors.md"), re.M)
    assert heads == list(CODES)


def test_the_page_of_errors_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "docs/generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("page", "title"), EXIT_TABLES)
def test_exit_statuses(page: str, title: str) -> None:
    found = {row[0]: row[1] for row in rows(section(page, title) if "##" in title else read(page))}
    reference = {row[0]: row[1] for row in rows(section("README.md", "## Exit status"))}
    assert {int(status) for status in reference} == set(ExitCode)
    assert found.items() >= reference.items()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_in_backticks_exist(page: Path) -> None:
    folders = (
        "schemas",
        "native",
        "runtime",
        "genie",
        "docs",
        "tests",
        "plans",
        "golden",
        "deploy",
    )
    missing = [
        span
        for span in code_spans(page.read_text(encoding="utf-8"))
        if span.startswith(tuple(f"{folder}/" for folder in folders))
        and re.fullmatch(r"[\w./-]+", span)
        # Golden plans of an example in a repository of the reader's own.
        and not span.startswith(("golden/vision", "golden/a100", "plans/golden"))
        and not (ROOT / span).exists()
    ]
    assert missing == []


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    named = {
        target
        for page in LINKED
        for target in re.findall(r"(?:`|^    )make ([a-z-]+)", page.read_text("utf-8"), re.M)
    }
    assert named <= targets
    listed = {row[0] for row in rows(section("docs/development.md", "## Make targets"))}
    assert listed == {f"`make {target}`" for target in targets - {"help"}}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_nothing_of_one_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(home|root|work|Users|mnt)/", text)
    hosts = set(re.findall(r"https?://([^/\s)\"]+)", text))
    assert hosts <= {"json-schema.org"}


def test_the_diff_in_the_readme_is_one_of_the_golden_plan() -> None:
    """Stale after the compiler changed: run python docs/generate.py."""
    diff = section("README.md", "## A plan in review")
    golden = read("golden/digits.plan.json").splitlines()
    block = diff[diff.index("```diff") : diff.index("<!-- end -->")].splitlines()
    removed = [line[1:] for line in block if line.startswith("-") and not line.startswith("---")]
    assert len(removed) > 5
    assert [line for line in removed if line not in golden] == []
