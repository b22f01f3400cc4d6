"""Arenas: sealed, shared by descriptor, refused when unsafe, assembled out of pages."""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path

import pytest

from genie_runtime.arena import HUGE_PAGE, PAGE, Arena
from genie_runtime.ports import Region
from genie_schemas.errors import GenieError

KIB = 1 << 10
MIB = 1 << 20


def test_attached_bytes_are_shared() -> None:
    arena = Arena.create(100_000)
    other = Arena.attach(os.dup(arena.fd), arena.size, arena.id)
    arena.view(Region(arena.id, 64, 5))[:] = b"hello"
    assert bytes(other.view(Region(arena.id, 64, 5))) == b"hello"
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(arena.fd, 0)
    other.close()
    other.close()
    arena.close()


@pytest.mark.parametrize(
    ("offset", "length"), [(-64, 64), (0, -1), (0, 1 << 40), (4096, 1), (4032, 65)]
)
def test_a_view_outside_is_refused(offset: int, length: int) -> None:
    arena = Arena.create(4096)
    with pytest.raises(GenieError) as caught:
        arena.view(Region(arena.id, offset, length))
    assert caught.value.code == "GEN0466"
    arena.close()


def test_views_outlive_a_closed_arena() -> None:
    arena = Arena.create(4096)
    view = arena.view(Region(arena.id, 0, 4))
    arena.close()
    view[:] = b"gone"
    assert bytes(view) == b"gone"


@pytest.mark.parametrize("how", ["unsealed", "short", "no memfd", "zero"])
def test_unsafe_descriptors_are_refused_and_closed(how: str) -> None:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8192)
    size = 4096
    if how in ("short", "zero"):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 1 | 2 | 4)
        size = 16384 if how == "short" else 0
    elif how == "no memfd":
        os.close(fd)
        fd, writer = os.pipe()
        os.close(writer)
    with pytest.raises(GenieError) as caught:
        Arena.attach(fd, size, 7)
    assert caught.value.code == "GEN0471"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_huge_pages_are_whole_and_really_there() -> None:
    try:
        arena = Arena.create(HUGE_PAGE + 1, huge=True)
    except GenieError as error:
        pytest.skip(f"needs two free 2 MiB pages: {error.cause}")
    assert (arena.huge, arena.size) == (True, 2 * HUGE_PAGE)
    assert os.fstat(arena.fd).st_blksize == HUGE_PAGE
    other = Arena.attach(os.dup(arena.fd), arena.size, arena.id)
    assert other.huge
    other.close()
    arena.close()


def test_huge_pages_that_are_not_there_are_an_error_and_no_crash() -> None:
    with pytest.raises(GenieError) as caught:
        Arena.create(1 << 40, huge=True)
    assert caught.value.code == "GEN0470"
    assert "2 MiB pages" in str(caught.value)


def mapped() -> int:
    gc.collect()
    return Path("/proc/self/maps").read_text().count("memfd:genie-arena")


def test_an_assembled_arena_shows_pages_in_the_order_of_its_parts() -> None:
    before = mapped()
    arenas = {a.id: a for a in (Arena.create(8 * PAGE), Arena.create(8 * PAGE))}
    one, two = arenas.values()
    parts = [(two.id, 4 * PAGE, PAGE), (one.id, 0, 2 * PAGE), (two.id, 0, PAGE)]
    made = Arena.assemble(parts, arenas)
    assert (made.size, made.fd, made.parts) == (4 * PAGE, -1, tuple(parts))
    made.view(Region(made.id, 0, 4 * PAGE))[:] = b"".join(bytes([n]) * PAGE for n in (1, 2, 3, 4))
    assert two.view(Region(two.id, 4 * PAGE, 1)).tobytes() == b"\1"
    assert one.view(Region(one.id, PAGE, 1)).tobytes() == b"\3"
    assert two.view(Region(two.id, 0, 1)).tobytes() == b"\4"
    made.zero(0, 2 * PAGE)
    assert one.view(Region(one.id, 0, PAGE)) == bytes(PAGE)
    view = made.view(Region(made.id, 3 * PAGE, PAGE))
    made.close()
    made.close()
    assert view[0] == 4  # the mapping stays as long as a view of it
    del view
    for arena in arenas.values():
        arena.close()
    assert mapped() <= before  # what an earlier test left behind may have gone meanwhile


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (1, PAGE),
        (0, PAGE - 1),
        (0, 0),
        (-PAGE, PAGE),
        (0, 9 * PAGE),
        (8 * PAGE, PAGE),
        (0, 1 << 50),
    ],
)
def test_parts_that_are_no_pages_of_their_arena_are_refused(offset: int, length: int) -> None:
    arena = Arena.create(8 * PAGE)
    with pytest.raises(GenieError) as caught:
        Arena.assemble([(arena.id, offset, length)], {arena.id: arena})
    assert caught.value.code == "GEN0471"
    arena.close()


def test_parts_of_nothing_are_refused() -> None:
    arena = Arena.create(PAGE)
    made = Arena.assemble([(arena.id, 0, PAGE)], {arena.id: arena})
    for parts in ([], [(99, 0, PAGE)], [(made.id, 0, PAGE)]):
        with pytest.raises(GenieError) as caught:
            Arena.assemble(parts, {arena.id: arena, made.id: made})
        assert caught.value.code == "GEN0471"
    made.close()
    arena.close()


def test_no_address_space_is_a_typed_error() -> None:
    with pytest.raises(GenieError) as caught:
        Arena.create(1 << 62)
    assert caught.value.code == "GEN0470"
    with pytest.raises(ValueError, match="0 bytes"):
        Arena.create(0)
