"""Where an option's value comes from, and what is refused in a configuration file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from genie.cli.config import config_files

Run = Callable[..., Any]


@pytest.fixture
def settings(genie: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`genie plan show …` with options of every kind; prints what it was given."""

    @click.group("plan")
    def plan() -> None:
        """A group."""

    @plan.command("show")
    @click.option("--transport", default="auto")
    @click.option("--on", "endpoints", multiple=True)
    @click.option("--run-id")
    @click.option("--depth", type=int, default=1)
    @click.option("--stream/--no-stream")
    @click.option("--state-dir", type=click.Path())
    @click.option("--json", "as_json", is_flag=True, allow_from_autoenv=False)
    def show(**values: Any) -> None:
        click.echo(repr(sorted(values.items())))

    @click.command("execute")
    def execute() -> None:
        """Nothing."""

    monkeypatch.setattr(
        "genie.cli.main._COMMANDS",
        {"plan": ("genie.cli.explain", "x"), "execute": ("genie.cli.schema", "x")},
    )
    monkeypatch.setattr("genie.cli.explain.command", plan)
    monkeypatch.setattr("genie.cli.schema.command", execute)
    return genie


def _user_config(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "config" / "genie"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text)


def test_precedence(settings: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def transport(*args: str) -> str:
        result = settings("plan", "show", *args)
        assert result.code == 0, result.err
        return str(dict(eval_pairs(result.out))["transport"])

    assert transport() == "auto"
    _user_config(tmp_path, '[plan.show]\ntransport = "user"\nrun-id = "r1"\n')
    assert transport() == "user"
    Path("genie.toml").write_text('[plan.show]\ntransport = "project"\n')
    assert transport() == "project"
    assert dict(eval_pairs(settings("plan", "show").out))["run_id"] == "r1"
    monkeypatch.setenv("GENIE_PLAN_SHOW_TRANSPORT", "environment")
    assert transport() == "environment"
    assert transport("--transport", "flag") == "flag"


def eval_pairs(text: str) -> list[tuple[str, Any]]:
    import ast

    pairs: list[tuple[str, Any]] = ast.literal_eval(text)
    return pairs


def test_the_nearest_file_counts(settings: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("genie.toml").write_text('[plan.show]\ntransport = "outer"\ndepth = 2\n')
    Path("a/b").mkdir(parents=True)
    Path("a/genie.toml").write_text('[plan.show]\ntransport = "inner"\n')
    monkeypatch.chdir("a/b")
    values = dict(eval_pairs(settings("plan", "show").out))
    assert (values["transport"], values["depth"]) == ("inner", 1)


def test_every_kind_of_value(settings: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("genie.toml").write_text(
        '[plan.show]\non = ["unix:///a", "b:1"]\nstream = true\ndepth = 7\nstate-dir = "state"\n'
    )
    root = Path.cwd()
    Path("sub").mkdir()
    monkeypatch.chdir("sub")
    values = dict(eval_pairs(settings("plan", "show").out))
    assert values["endpoints"] == ("unix:///a", "b:1")
    assert (values["stream"], values["depth"]) == (True, 7)
    assert values["state_dir"] == str(root / "state")


@pytest.mark.parametrize(
    ("text", "place", "needle"),
    [
        ("[plan.show]\ntransprot = 'x'", "2:1", "did you mean 'transport'?"),
        ("[plna]\nx = 1", "1:2", "did you mean 'plan'?"),
        ("[plan.shwo]\nx = 1", "1:7", "did you mean 'show'?"),
        ("plan = 3", "1:8", "are a table"),
        ("[plan.show]\non = 'x'", "2:6", "must be a list"),
        ("[plan.show]\ntransport = ['x']", "2:13", "not a list"),
        ("[plan.show]\ntransport = {a = 1}", "2:13", "not a table"),
        ("[plan.show]\ntransport = true", "2:13", "must not be true or false"),
        ("[plan.show]\nstream = 'yes'", "2:10", "must be true or false"),
        ("[plan.show]\ndepth = 'deep'", "2:9", "not a valid integer"),
        ("[plan.show]\njson = true", "2:1", "no option 'json'"),
        ("[plan.show\n", "1:11", "expected"),
        ("a = 1\na = 2", "2:1", "already defined"),
        ("[plan.show]\ndepth = 1979-05-27", "2:9", "dates"),
    ],
)
def test_refused(text: str, place: str, needle: str, settings: Run) -> None:
    Path("genie.toml").write_text(text)
    result = settings("plan", "show")
    assert result.code == 2
    assert "GEN0130" in result.err
    assert f"genie.toml:{place}" in result.err
    assert needle in result.err.lower()


def test_all_mistakes_at_once(settings: Run) -> None:
    Path("genie.toml").write_text("[plan.show]\na = 1\nstream = 3\n[other]\nx = 1\n")
    assert "3 errors" in settings("plan", "show").err


def test_help_works_beside_a_broken_file(settings: Run) -> None:
    Path("genie.toml").write_text("[")
    assert settings("plan", "--help").code == 0
    assert settings("--help").code == 0
    assert settings("plan", "show").code == 2


def test_explain_works_beside_a_broken_file(genie: Run) -> None:
    Path("genie.toml").write_text("[")
    assert genie("explain", "GEN0130").code == 0
    assert genie("validate", "small.yaml").code == 2


def test_a_file_that_anybody_could_have_planted_is_ignored(
    genie: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Path.cwd() / "genie.toml"
    planted.write_text("[execute]\n")
    assert list(config_files(Path.cwd())) == [planted]
    # Another user's file counts in a folder that only its owner can write to …
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    real = os.stat_result
    owner = 54321

    def foreign(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        info = list(os.stat(self, follow_symlinks=follow_symlinks))
        info[4] = owner
        return real(info)

    monkeypatch.setattr(Path, "stat", foreign)
    assert list(config_files(Path.cwd())) == [planted]
    # … and not in one like /tmp.
    planted.parent.chmod(0o1777)
    assert list(config_files(Path.cwd())) == []
