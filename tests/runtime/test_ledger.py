"""The ledger: one meaning an id, one publication a run, nothing forged on a full disk."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genie_runtime import outputs
from genie_runtime.ledger import Acceptance, Ledger
from genie_runtime.ledger_rules import RunKey
from genie_runtime.outputs import OutputRecord
from genie_schemas import constants
from genie_schemas.errors import GenieError

KEY = RunKey("run-1", "sha256:plan", "forward", "sha256:inputs")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state")


def record(text: bytes = b"12345678", value: str = "y") -> list[OutputRecord]:
    return [OutputRecord(value, "f32[2]", memoryview(text))]


def accept(ledger: Ledger, key: RunKey = KEY) -> Acceptance:
    accepted = ledger.accept(key, threads=1)
    assert accepted is not None
    return accepted


def test_a_published_run_is_recorded_and_survives_reopening(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    assert first.recall(KEY).state == "new"
    stored = first.publish(accept(first), record())
    first.close()
    second = Ledger(tmp_path)
    recall = second.recall(KEY)
    assert recall.state == "recorded"
    assert recall.stored == stored
    assert bytes(stored.read()) == b"12345678"
    assert [(o.value, o.type, o.offset, o.nbytes) for o in stored.outputs] == [
        ("y", "f32[2]", 0, 8)
    ]
    assert second.epoch == first.epoch + 1


def test_a_run_going_on_is_not_accepted_twice(ledger: Ledger) -> None:
    accepted = accept(ledger)
    assert ledger.recall(KEY).state == "running"
    assert ledger.accept(KEY, threads=1) is None
    ledger.fail(accepted, GenieError("GEN0414", "too late"))
    assert ledger.recall(KEY).state == "new"
    again = accept(ledger)
    assert again.attempt == accepted.attempt + 1


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (RunKey("run-1", "sha256:plan", "forward", "other"), "other inputs"),
        (RunKey("run-1", "other", "forward", "sha256:inputs"), "another plan"),
        (RunKey("run-1", "sha256:plan", "other", "sha256:inputs"), "another entry point"),
        (RunKey("run-1", "other", "forward", "other"), "other plan and inputs"),
    ],
)
@pytest.mark.parametrize("ended", ["published", "failed", "running"])
def test_an_id_means_one_thing_for_ever(
    ledger: Ledger, other: RunKey, words: str, ended: str
) -> None:
    accepted = accept(ledger)
    if ended == "published":
        ledger.publish(accepted, record())
    elif ended == "failed":
        ledger.fail(accepted, GenieError("GEN0414", "too late"))
    for ask in (ledger.recall, lambda key: ledger.accept(key, threads=1)):
        with pytest.raises(GenieError) as caught:
            ask(other)
        assert caught.value.code == "GEN0410"
        assert "'run-1'" in caught.value.message
        assert words in caught.value.message


def test_a_fenced_attempt_publishes_nothing(tmp_path: Path) -> None:
    zombie = Ledger(tmp_path)
    old = accept(zombie)
    zombie.close()  # as if it died: its lock is free
    fresh = Ledger(tmp_path)
    new = accept(fresh)
    zombie = Ledger(tmp_path)
    with pytest.raises(GenieError) as caught:
        zombie.publish(old, record(b"old old "))
    assert caught.value.code == "GEN0415"
    fresh.publish(new, record(b"new new "))
    late = zombie.publish(old, record(b"old old "))
    assert bytes(late.read()) == b"new new "
    assert [row["publications"] for row in fresh.rows()] == [1]
    assert len(list((tmp_path / "outputs").iterdir())) == 1


def test_recomputing_a_recorded_run_publishes_nothing_again(ledger: Ledger) -> None:
    first = ledger.publish(accept(ledger), record(b"first   "))
    again = accept(ledger)
    assert again.recorded
    assert ledger.publish(again, record(b"second  ")) == first
    ledger.fail(again, GenieError("GEN0414", "too late"))
    assert ledger.recall(KEY).state == "recorded"


def test_a_dead_process_gives_its_runs_free(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; "
        "from genie_runtime.ledger import Ledger; from genie_runtime.ledger_rules import RunKey;"
        f"l = Ledger(Path({str(tmp_path)!r})); l.accept(RunKey('run-1', 'sha256:plan', 'forward',"
        "'sha256:inputs'), 1);"
        "print('ready', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        assert child.stdout.readline() == b"ready\n"
        mine = Ledger(tmp_path)
        assert mine.recall(KEY).state == "running"
        assert mine.accept(KEY, threads=1) is None
    finally:
        child.kill()
        child.wait(10)
        child.stdin.close()
        child.stdout.close()
    assert mine.recall(KEY).state == "new"
    assert accept(mine).attempt == 2


def test_files_of_the_dead_are_removed_and_of_the_living_kept(tmp_path: Path) -> None:
    alive, dead = Ledger(tmp_path), Ledger(tmp_path)
    folder = tmp_path / "outputs"
    kept = folder / outputs.file_name("a", alive.epoch, 1)
    gone = folder / ("." + outputs.file_name("b", dead.epoch, 1).removesuffix(".bin") + ".tmp")
    for path in (kept, gone, folder / "not-ours"):
        path.write_bytes(b"x")
    # Dead, not closed: the lock file is still there, and nobody holds it.
    os.close(dead._owners._fd)
    dead._owners._fd = -1
    dead.close()
    Ledger(tmp_path)
    assert kept.exists()
    assert not gone.exists()
    assert (folder / "not-ours").exists()


def test_old_and_large_results_are_evicted_and_never_run_silently(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, max_bytes=20)
    keys = [RunKey(f"run-{n}", "p", "f", "i") for n in range(4)]
    for key in keys:
        ledger.publish(accept(ledger, key), record())
    with pytest.raises(GenieError) as caught:
        ledger.recall(keys[0])
    assert caught.value.code == "GEN0411"
    with pytest.raises(GenieError):
        ledger.accept(keys[1], threads=1)
    assert ledger.recall(keys[3]).state == "recorded"
    assert ledger.recall(keys[2]).state == "recorded"
    assert len(list((tmp_path / "outputs").iterdir())) == 2
    aged = Ledger(tmp_path, max_age=-1.0)
    assert aged.sweep() == 2
    with pytest.raises(GenieError):
        aged.recall(keys[3])


def test_one_result_larger_than_the_limit_is_kept_until_the_next(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, max_bytes=4)
    ledger.publish(accept(ledger), record())
    assert ledger.recall(KEY).state == "recorded"


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_damaged_outputs_are_not_handed_out(ledger: Ledger, damage: str) -> None:
    stored = ledger.publish(accept(ledger), record())
    if damage == "changed":
        stored.path.write_bytes(b"12345679")
    elif damage == "cut":
        stored.path.write_bytes(b"")
    else:
        stored.path.unlink()
    with pytest.raises(GenieError) as caught:
        stored.read()
    assert caught.value.code == "GEN0424"


def test_a_foreign_or_newer_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"no database at all, but long enough to look" * 40)
    with pytest.raises(GenieError) as caught:
        Ledger(tmp_path)
    assert caught.value.code == "GEN0507"
    newer = tmp_path / "newer"
    Ledger(newer).close()
    with sqlite3.connect(newer / "ledger.sqlite") as db:
        db.execute("UPDATE meta SET value=99 WHERE key='format'")
    db.close()
    with pytest.raises(GenieError) as caught:
        Ledger(newer)
    assert caught.value.code == "GEN0507"
    assert "99" in caught.value.message


@pytest.mark.root
def test_a_full_disk_fails_closed_and_stays_readable(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mount)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.decode().strip()}")
    try:
        ledger = Ledger(mount)
        ledger.publish(accept(ledger), record())
        other = RunKey("run-2", "p", "f", "i")
        accepted = accept(ledger, other)
        with pytest.raises(GenieError) as caught:
            ledger.publish(accepted, record(bytes(1 << 20)))
        assert caught.value.code == "GEN0506"
        assert "space" in (caught.value.cause or "")
        recall = ledger.recall(KEY)
        assert recall.stored is not None
        assert bytes(recall.stored.read()) == b"12345678"
        # The room is free again, and the run may be tried again under its id.
        assert ledger.recall(other).state == "new"
        ledger.publish(accept(ledger, other), record())
        (mount / "filler").write_bytes(bytes(_room(mount)))
        third = RunKey("run-3", "p", "f", "i")
        with pytest.raises(GenieError) as caught:
            for n in range(200):
                ledger.accept(RunKey(f"run-3-{n}", "p" * 400, "f", "i"), threads=1)
        assert caught.value.code == "GEN0506"
        assert ledger.recall(third).state == "new"
        assert ledger.recall(KEY).state == "recorded"
        ledger.close()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


def _room(mount: Path) -> int:
    info = os.statvfs(mount)
    return max(info.f_bavail * info.f_frsize - 8192, 0)


def test_a_state_directory_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GenieError) as caught:
        Ledger(tmp_path / "file" / "state")
    assert caught.value.code == "GEN0506"


@given(st.lists(st.binary(max_size=100), max_size=5), st.integers(0, 3))
def test_the_digest_of_pieces_is_that_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], large: int
) -> None:
    folder = tmp_path_factory.mktemp("outputs")
    pieces = [*pieces, b"z" * (constants.CHUNK * large // 2)]
    items = [OutputRecord(f"v{i}", "u8[1]", memoryview(p)) for i, p in enumerate(pieces)]
    nbytes, digest = outputs.write(folder, "x-1-1.bin", items)
    whole = b"".join(pieces)
    assert (folder / "x-1-1.bin").read_bytes() == whole
    assert (nbytes, digest) == (len(whole), constants.digest(whole))
    described = outputs.parse(outputs.describe(items))
    assert [whole[o.offset : o.offset + o.nbytes] for o in described] == pieces
