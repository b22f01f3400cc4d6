"""Files that hold secrets: made 0600 and never overwritten, refused when others may read them."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from genie_schemas.errors import GenieError, Place

_MAX = 64 * 1024


def config_home() -> Path:
    """Where this user's configuration lies: $XDG_CONFIG_HOME/genie, by default ~/.config/genie."""
    from platformdirs import user_config_path

    return user_config_path("genie", appauthor=False)


def default_token_file() -> Path:
    """The token of this user's daemons on loopback."""
    return config_home() / "token"


def unusable(path: Path, cause: str, remedy: str) -> GenieError:
    """The error for a file with a secret that cannot be used."""
    return GenieError(
        "GEN0523",
        f"the credentials in {path.name} cannot be used",
        Place(file=str(path)),
        cause,
        remedy,
    )


def read_secret(path: Path) -> bytes:
    """A secret's bytes; GEN0523 when it is missing or other users may read it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise unusable(
            path, error.strerror or str(error), "name the file that `genie auth init` wrote"
        ) from None
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise unusable(path, "it is no regular file", "name a file")
        if info.st_mode & 0o077 or info.st_uid not in (os.geteuid(), 0):
            raise unusable(
                path,
                f"its mode is {stat.S_IMODE(info.st_mode):04o}, so others may know it",
                f"chmod 600 {path.name}, and make new credentials if others may have read it",
            )
        data = file.read(_MAX + 1)
    if len(data) > _MAX:
        raise unusable(path, f"it is larger than {_MAX >> 10} KiB", "name the right file")
    return data


def read_token(path: Path) -> str:
    """The token in a file: 32 to 512 printable characters on one line. GEN0523."""
    text = read_secret(path).decode("ascii", "replace").strip()
    if not 32 <= len(text) <= 512 or not text.isprintable() or " " in text or "\ufffd" in text:
        raise unusable(path, "it holds no token", "make one with `genie auth init`")
    return text


def write_secret(path: Path, data: bytes, mode: int = 0o600) -> bool:
    """Create a file with a secret; False when it exists already, which is left as it is.

    The content is there before the name is: a reader never sees half a secret.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        return True
    finally:
        temporary.unlink(missing_ok=True)


def ensure_token(path: Path) -> str:
    """The token in a file, made when there is none. GEN0523 when it cannot be made or read."""
    try:
        if not path.exists():
            write_secret(path, secrets.token_hex(32).encode() + b"\n")
    except OSError as error:
        raise unusable(
            path, error.strerror or str(error), "name another file with --token-file"
        ) from None
    return read_token(path)
