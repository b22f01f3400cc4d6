"""Mutual TLS: required beyond this machine, and it carries transfers."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from genie_schemas.errors import GenieError
from genie_transport import Limits, Listener, connect
from tests.transport.support import KEY, WAIT, code_of, eventually


class Authority:
    """A certificate authority and what it has signed, in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        extension = x509.BasicConstraints(ca=True, path_length=None)
        self._write(self.path, self._sign(self._name, self._key, extension))

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @staticmethod
    def _write(path: Path, certificate: x509.Certificate, key: bytes = b"") -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key)

    def issue(self, name: str) -> Path:
        """Certificate and key of `name`, good for 127.0.0.1, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternative = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path = self._folder / f"{name}.pem"
        self._write(path, self._sign(subject, key, alternative), private)
        return path


def context(
    purpose: ssl.Purpose, authority: Authority, own: Path | None, *, strict: bool = True
) -> ssl.SSLContext:
    made = ssl.create_default_context(purpose, cafile=str(authority.path))
    made.verify_mode = ssl.CERT_REQUIRED
    if strict:
        made.minimum_version = ssl.TLSVersion.TLSv1_3
    if own is not None:
        made.load_cert_chain(own)
    return made


SERVER, CLIENT = ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def server_tls(authority: Authority) -> ssl.SSLContext:
    return context(SERVER, authority, authority.issue("server"))


@pytest.fixture
def client_tls(authority: Authority) -> ssl.SSLContext:
    return context(CLIENT, authority, authority.issue("client"))


def test_transfers_over_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    size = 24 * (1 << 20) + 17
    data = os.urandom(1 << 20) * 24 + b"seventeen bytes!!"
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
        connect(listener.endpoint, "s", KEY, tls=client_tls) as client,
    ):
        assert client.capabilities().encrypted
        assert daemon.capabilities().encrypted
        there, back = bytearray(size), bytearray(size)
        out = client.post(client.register(data), daemon.register(there))
        into = client.register(back)
        home = daemon.post(daemon.register(data), into)
        assert out.result(WAIT) == home.result(WAIT) == size
        assert there == back == data
        for _ in range(50):
            src, dst = client.register(b"x" * 64), daemon.register(bytearray(64))
            assert client.post(src, dst).result(WAIT) == 64


def test_any_address_may_be_opened_with_tls(server_tls: ssl.SSLContext) -> None:
    with Listener.open("tcp://0.0.0.0:0", server_tls) as listener:
        assert not listener.endpoint.endswith(":0")


def test_a_client_without_a_certificate_is_refused(
    authority: Authority, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    anonymous = context(CLIENT, authority, None)
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
    ):
        with pytest.raises(GenieError) as caught:
            connect(listener.endpoint, "s", KEY, tls=anonymous)
        assert caught.value.code in ("GEN0606", "GEN0604")  # an alert, or a reset behind it
        assert not daemon.wait_connected(0)
        with connect(listener.endpoint, "s", KEY, tls=client_tls):
            assert daemon.wait_connected(WAIT)


def test_strangers_certificates_are_refused(
    tmp_path: Path, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    mixed = context(CLIENT, authority, other.issue("client"))
    distrusting = context(CLIENT, other, authority.issue("client"))
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
    ):
        for tls in (mixed, distrusting):
            with pytest.raises(GenieError) as caught:
                connect(listener.endpoint, "s", KEY, tls=tls)
            assert caught.value.code in ("GEN0606", "GEN0604")
        assert not daemon.wait_connected(0)


def test_tls_alone_does_not_open_a_session(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY),
        pytest.raises(GenieError, match="GEN0606"),
    ):
        connect(listener.endpoint, "s", bytes(32), tls=client_tls)


def test_plain_dialler_at_a_tls_listener(server_tls: ssl.SSLContext) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY),
        pytest.raises(GenieError) as caught,
    ):
        connect(listener.endpoint, "s", KEY, timeout=WAIT)
    assert caught.value.code in ("GEN0604", "GEN0606")


def test_tls_dialler_at_a_plain_listener(client_tls: ssl.SSLContext) -> None:
    with (
        Listener.open("tcp://127.0.0.1:0") as listener,
        listener.expect("s", KEY),
        pytest.raises(GenieError) as caught,
    ):
        connect(listener.endpoint, "s", KEY, tls=client_tls, timeout=WAIT)
    assert caught.value.code in ("GEN0604", "GEN0606")


def test_weak_contexts_are_refused(
    authority: Authority, tmp_path: Path, client_tls: ssl.SSLContext
) -> None:
    own = authority.issue("server")
    old = context(SERVER, authority, own, strict=False)
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    lax = context(SERVER, authority, own)
    lax.verify_mode = ssl.CERT_NONE
    for weak in (old, lax):
        with pytest.raises(GenieError, match="GEN0603"):
            Listener.open("tcp://127.0.0.1:0", weak)
        with pytest.raises(GenieError, match="GEN0603"):
            connect("tcp://127.0.0.1:9", "s", KEY, tls=weak)
    with pytest.raises(GenieError, match="GEN0602"):
        Listener.open(f"unix://{tmp_path}/x.sock", client_tls)
    with pytest.raises(GenieError, match="GEN0602"):
        connect(f"unix://{tmp_path}/x.sock", "s", KEY, tls=client_tls)


def test_a_slow_reader_over_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Partial TLS writes are taken up again where they stopped."""
    limits = Limits(window_bytes=64 << 20)
    release = threading.Event()
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY, limits=limits) as daemon,
        connect(listener.endpoint, "s", KEY, tls=client_tls, limits=limits) as client,
    ):
        ticket = daemon.arrival(daemon.register(bytearray(1)), deadline=0.001)
        ticket.add_done_callback(lambda _: release.wait(WAIT) and None)
        data = os.urandom(1 << 20) * 32
        buffer = bytearray(len(data))
        future = client.post(client.register(data), daemon.register(buffer))
        stats = client.stats
        eventually(lambda: stats().in_flight > 0, "it has begun")
        release.set()
        assert future.result(WAIT) == len(data)
        assert buffer == data


def test_cut_in_the_middle_of_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """A TLS stream that ends without its farewell is a lost connection."""
    with (
        Listener.open("tcp://127.0.0.1:0", server_tls) as listener,
        listener.expect("s", KEY) as daemon,
    ):
        arrival = daemon.arrival(daemon.register(bytearray(1)))
        client = connect(listener.endpoint, "s", KEY, tls=client_tls)
        assert daemon.wait_connected(WAIT)
        stream = client._transport._polled._stream  # type: ignore[attr-defined]
        with socket.socket(fileno=os.dup(stream.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)
        assert code_of(arrival) == "GEN0610"
        client.close()
