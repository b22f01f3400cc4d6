"""The native transports."""

from typing import Any

def address_of(buffer: object) -> int: ...

class FaultRates:
    def __init__(
        self,
        drop: float = 0.0,
        duplicate: float = 0.0,
        late: float = 0.0,
        truncate: float = 0.0,
        flip: float = 0.0,
        lateness_ns: int = 0,
        delay_ns: int = 0,
    ) -> None: ...

class Poller:
    @staticmethod
    def start(port: object, faults: FaultRates, seed: int) -> Poller: ...
    @staticmethod
    def rings(
        slots: int, max_datagram: int, faults: FaultRates, seed: int
    ) -> tuple[Poller, Poller]: ...
    @property
    def driver(self) -> str: ...
    @property
    def max_datagram(self) -> int: ...
    @property
    def credit(self) -> int: ...
    @property
    def wakes(self) -> bool: ...
    def open(
        self,
        local: tuple[bytes, bytes, int],
        peer: tuple[bytes, bytes, int],
        local_connection: int,
        peer_connection: int,
        epoch: int,
        sealed: bool,
        send: bytes,
        receive: bytes,
        max_datagram: int,
        window: int,
        peer_window: int,
        stall_ns: int,
        queue: int,
        shared_path: bool,
    ) -> Channel: ...
    def counters(self) -> tuple[int, int, int, int, int]: ...
    def up(self) -> bool: ...
    def stop(self) -> None: ...

class Channel:
    def fileno(self) -> int: ...
    def add(
        self,
        address: int,
        length: int,
        writable: bool,
        arena: int,
        offset: int,
        epoch: int,
        key: bytes,
    ) -> bool: ...
    def withdraw(self, key: bytes) -> bool: ...
    def fence(self, epoch: int) -> None: ...
    def post(
        self,
        op: int,
        address: int,
        arena: int,
        offset: int,
        length: int,
        epoch: int,
        key: bytes,
        priority: int,
    ) -> None: ...
    def cancel(self, op: int) -> bool: ...
    def alarm(self, delay_ns: int) -> None: ...
    def poll(self, timeout_ns: int) -> list[tuple[int, int, int, int, Any]]: ...
    def ping(
        self,
        address: int,
        arena: int,
        offset: int,
        length: int,
        epoch: int,
        there: bytes,
        here: bytes,
        count: int,
        first: bool,
        pause_ns: int,
    ) -> list[tuple[int, int]]: ...
    def pending(self) -> bool: ...
    def wake(self) -> None: ...
    def hold(self, yes: bool) -> None: ...
    @property
    def max_datagram(self) -> int: ...
    def counters(self) -> tuple[int, int, int, int, int]: ...
    def details(self) -> dict[str, int]: ...
    def unfinished(self) -> list[tuple[int, int]]: ...
    def finished(self, message: int) -> bool: ...
    def close(self) -> None: ...
    def join(self) -> None: ...

class Arena:
    def __init__(self, nbytes: int, huge: bool = True) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def huge(self) -> bool: ...
    @property
    def view(self) -> memoryview: ...

class Port:
    def __init__(self, window: int, chunk: int, stall_ns: int) -> None: ...
    def fileno(self) -> int: ...
    def add(
        self,
        address: int,
        length: int,
        writable: bool,
        arena: int,
        offset: int,
        epoch: int,
        key: bytes,
    ) -> None: ...
    def withdraw(self, key: bytes) -> bool: ...
    def fence(self, epoch: int) -> None: ...
    def post(
        self,
        op: int,
        address: int,
        arena: int,
        offset: int,
        length: int,
        epoch: int,
        key: bytes,
        priority: int,
    ) -> None: ...
    def cancel(self, op: int) -> bool: ...
    def alarm(self, delay_ns: int) -> None: ...
    def poll(self, timeout_ns: int) -> list[tuple[int, int, int, int, Any]]: ...
    def ping(
        self,
        address: int,
        arena: int,
        offset: int,
        length: int,
        epoch: int,
        there: bytes,
        here: bytes,
        count: int,
        first: bool,
        pause_ns: int,
    ) -> list[tuple[int, int]]: ...
    def pending(self) -> bool: ...
    def wake(self) -> None: ...
    def hold(self, yes: bool) -> None: ...
    def stand(
        self,
        op: int,
        address: int,
        arena: int,
        offset: int,
        length: int,
        epoch: int,
        key: bytes,
        priority: int,
        trigger: int,
    ) -> None: ...
    def conclude(self, op: int) -> None: ...
    def hang(self, key: bytes, eventfd: int) -> bool: ...
    def carried(self, op: int) -> tuple[int, int]: ...
    def rings(self, key: bytes) -> int: ...
    def counters(self) -> tuple[int, int, int, int, int]: ...
    def close(self) -> None: ...
    def join(self) -> None: ...
    def attach_shm(
        self, fd: int, greeting: bytes, window: int, chunk: int, stall_ns: int, ring: int
    ) -> bool: ...
    def attach_tcp(
        self,
        fds: list[int],
        greeting: bytes,
        window: int,
        chunk: int,
        stall_ns: int,
        send: list[bytes],
        receive: list[bytes],
    ) -> bool: ...
    def attach_ucx(
        self,
        factory: object,
        fd: int,
        greeting: bytes,
        window: int,
        chunk: int,
        stall_ns: int,
        network: bool,
        loopback: bool,
        sealed: bool,
        send: bytes,
        receive: bytes,
    ) -> bool: ...
    def share(self, arena: Arena) -> bool: ...
