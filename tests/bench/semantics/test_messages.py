"""Remote-operator servers do what messages say, and refuse what is none."""

from __future__ import annotations

import secrets
import socket
import struct

import pytest
import torch

from genie.bench.semantics import _messages as wire
from genie.bench.semantics._messages import Kind
from genie.bench.semantics._remote import RemoteFailed
from tests.bench.semantics.peers import SECONDS, plain, remote, served

ADD = '{"out":["o0"],"op":"aten.add.Tensor","args":[{"v":"i0"},{"v":"i1"}]}'
DEFINE = bytes([Kind.DEFINE])
STORE = bytes([Kind.STORE]) + wire.slots(1).pack(0)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4),
        torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        torch.arange(24).reshape(2, 3, 4)[:, 1:, ::2],
        torch.tensor(3.5, dtype=torch.float64),
        torch.zeros(0, 7),
        torch.tensor([True, False]),
        torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        torch.ones(3, 1).expand(3, 5),
    ],
    ids=["rows", "permuted", "sliced", "scalar", "empty", "bool", "bfloat16", "expanded"],
)
def test_a_tensor_comes_back_as_it_went(tensor: torch.Tensor) -> None:
    with remote() as server:
        server.store(7, tensor)
        server.ask(7)
        found = server.answer()
    assert found.dtype == tensor.dtype
    assert torch.equal(found, tensor)
    if 0 not in tensor.stride() and tensor.numel():
        rank = range(tensor.dim())
        assert sorted(rank, key=found.stride, reverse=True) == sorted(
            rank, key=tensor.stride, reverse=True
        )


def test_a_call_reads_and_makes_slots() -> None:
    with remote() as server:
        server.store(0, torch.ones(3))
        number = server.define(ADD)
        assert server.define(ADD) == number
        server.call(number, [0, 0], [1])
        server.call(number, [1, 0], [0])
        server.ask(0)
        assert server.answer().tolist() == [3.0, 3.0, 3.0]


def test_an_operator_that_fails_is_told() -> None:
    with remote() as server:
        server.store(0, torch.ones(3))
        server.store(1, torch.ones(4))
        server.call(server.define(ADD), [0, 1], [2])
        server.ask(2)
        with pytest.raises(RemoteFailed, match="must match the size"):
            server.answer()


def test_only_operators_of_the_allow_list_are_called() -> None:
    with remote() as server:
        server.define('{"out":["o0"],"op":"aten.from_file.default","args":[{"s":"/etc/passwd"}]}')
        server.ask(0)
        with pytest.raises(RemoteFailed, match="GEN0457"):
            server.answer()


def _header(code: int, rank: int, *sizes: int) -> bytes:
    return struct.pack(f"<BB{len(sizes)}I", code, rank, *sizes)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x63", "99 is no message"),
        (bytes([Kind.VALUE]), "6 is no message"),
        (bytes([Kind.CALL]) + wire.CALL.pack(5), "call 5 is not defined"),
        (DEFINE + wire.DEFINE.pack(0, 1 << 20), "a definition of 1048576 bytes"),
        (DEFINE + wire.DEFINE.pack(0, 4) + b"\xff{}}", "cannot be read"),
        (DEFINE + wire.DEFINE.pack(0, 2) + b"{}", "cannot be read"),
        (bytes([Kind.FETCH]) + wire.slots(1).pack(3), "slot 3 is empty"),
        (STORE + _header(200, 1, 4) + b"\0", "dtype 200"),
        (STORE + _header(1, 17), "rank 17"),
        (STORE + _header(1, 2, 1 << 31, 1 << 31) + b"\0\1", "are allowed"),
        (STORE + _header(1, 2, 2, 2) + b"\0\0", "is no order of 2 dimensions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_message_is_refused(data: bytes, why: str) -> None:
    with plain() as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    text = answer[1 + wire.TEXT.size :].decode()
    assert answer[:1] == bytes([Kind.FAILED])
    assert wire.TEXT.unpack(answer[1 : 1 + wire.TEXT.size]) == (len(text),)
    assert why in text


@pytest.mark.parametrize("cut", [1, 3, 9])
def test_a_message_that_breaks_off_ends_the_connection(cut: int) -> None:
    whole = STORE + _header(1, 1, 4) + b"\0" + bytes(16)
    with plain() as connection:
        connection.sendall(whole[:cut])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(64) == b""


def test_slots_are_used_again_without_a_word() -> None:
    with remote() as server:
        first, second = server.take(), server.take()
        server.store(first, torch.ones(1))
        before = server.sent.bytes
        server.drop(first)
        assert server.sent.bytes == before
        assert (server.take(), server.take()) == (first, second + 1)
        server.store(first, torch.zeros(1))
        server.ask(first)
        assert server.answer().item() == 0.0
        server.release(first)
        server.ask(first)
        with pytest.raises(RemoteFailed, match=f"slot {first} is empty"):
            server.answer()


def test_a_call_takes_few_bytes() -> None:
    with remote() as server:
        server.store(0, torch.ones(3))
        number = server.define(ADD)
        for _ in range(1000):
            server.call(number, [0, 0], [1])
        assert (server.sent.operations, server.sent.bytes) == (1000, 9000)
        server.ask(1)
        assert server.answer().tolist() == [2.0, 2.0, 2.0]


def test_a_stranger_is_not_served() -> None:
    with (
        served() as (port, _),
        socket.create_connection(("127.0.0.1", port), SECONDS) as connection,
    ):
        connection.sendall(wire.MAGIC + secrets.token_bytes(wire.KEY_BYTES))
        assert connection.recv(64) == b""
