"""Who may connect: certificates, tokens, and which addresses need them.

unix:///…                   the socket's mode 0600
loopback host:port          the user's token
any other host:port         mutual TLS 1.3 and a token; no option overrides this
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from genie_runtime.secrets_files import read_secret, unusable, write_secret
from genie_schemas.errors import GenieError, Place

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CA, TOKEN = "ca.pem", "token"
LIFETIME = timedelta(days=825)
"""Certificates end; 825 days is the longest that common TLS stacks accept."""


@dataclass(frozen=True)
class Identity:
    """One side's certificate with its key, and the CA that both sides trust. PEM."""

    ca: bytes
    certificate: bytes
    key: bytes
    folder: Path
    role: str

    @classmethod
    def load(cls, folder: Path, role: str) -> Identity:
        """Read `ca.pem`, `<role>.pem` and `<role>.key`; role is "server" or "client". GEN0523."""
        found = []
        for name in (CA, f"{role}.pem"):
            try:
                found.append((folder / name).read_bytes())
            except OSError as error:
                raise unusable(
                    folder / name,
                    error.strerror or str(error),
                    "make certificates with `genie auth init`, or name their folder (--tls-dir)",
                ) from None
        return cls(found[0], found[1], read_secret(folder / f"{role}.key"), folder, role)

    def context(self, *, server: bool) -> ssl.SSLContext:
        """A context for data connections: TLS 1.3 only, both sides prove themselves. GEN0523."""
        purpose = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=self.ca.decode("ascii"))
            context.load_cert_chain(
                self.folder / f"{self.role}.pem", self.folder / f"{self.role}.key"
            )
        except (ssl.SSLError, ValueError) as error:
            raise unusable(
                self.folder / f"{self.role}.pem", str(error), "make new ones: `genie auth init`"
            ) from None
        return context


def forbid_old_tls() -> None:
    """Leave gRPC only TLS 1.3. Call before grpc is imported.

    Its Python API has no minimum version. TLS 1.3 suites are not configurable and stay; for TLS
    1.2 we name a suite for RSA keys, which our ECDSA certificates cannot serve, so that no 1.2
    handshake can end well.
    """
    os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES128-GCM-SHA256"


def is_loopback(host: str) -> bool:
    """Whether an address or "localhost" reaches this machine alone; other names never count."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def init(folder: Path, hosts: Sequence[str]) -> list[Path]:
    """Make a CA, a server and a client certificate and a token; returns the files.

    `hosts` are the names and addresses under which daemons are reached, beside localhost. Raises
    GEN0524 when one of the files exists: nothing is changed then. GEN0523 when the folder cannot
    be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    names = [CA, "ca.key", "server.pem", "server.key", "client.pem", "client.key", TOKEN]
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise GenieError(
            "GEN0524",
            f"{folder} holds credentials already",
            Place(file=str(folder / there[0])),
            f"found {', '.join(there)}",
            "name another --dir; to replace them, remove them on purpose first",
        )

    def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("genie CA", ca_key, None, ca_key, [])
    files = {CA: _pem(ca), "ca.key": pem(ca_key)}
    for role, own in (("server", ["localhost", "127.0.0.1", "::1", *hosts]), ("client", [])):
        key = ec.generate_private_key(ec.SECP256R1())
        files[f"{role}.pem"] = _pem(_certificate(f"genie {role}", key, ca, ca_key, own))
        files[f"{role}.key"] = pem(key)
    files[TOKEN] = os.urandom(32).hex().encode() + b"\n"
    try:
        return [_write_new(folder / name, files[name]) for name in names]
    except OSError as error:
        raise unusable(folder, error.strerror or str(error), "name another --dir") from None


def _write_new(path: Path, data: bytes) -> Path:
    if not write_secret(path, data):
        raise GenieError("GEN0524", f"{path.name} appeared meanwhile", Place(file=str(path)))
    return path


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    authority = issuer is None
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ a little
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=not authority,
                key_cert_sign=authority,
                crl_sign=authority,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not authority:
        # A daemon is a client of other daemons: its certificate serves both ends.
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts:
            usage.append(ExtendedKeyUsageOID.SERVER_AUTH)
            alternative = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(alternative, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise GenieError(
            "GEN0514", f"{host[:80]!r} is no host name", remedy="give a DNS name or an IP address"
        ) from None
