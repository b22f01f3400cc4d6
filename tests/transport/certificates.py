"""A certificate authority for the tests of mutual TLS."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


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
