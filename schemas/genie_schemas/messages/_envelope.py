"""Messages on the wire: strict JSON, replies in an envelope that carries errors whole."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from genie_schemas import canonical
from genie_schemas.errors import GenieError, GenieErrors
from genie_schemas.messages._base import MAX_MESSAGE

M = TypeVar("M", bound=BaseModel)


def encode(message: BaseModel) -> bytes:
    """A request on the wire."""
    return message.model_dump_json(exclude_defaults=True).encode()


def encode_reply(message: BaseModel) -> bytes:
    """A reply on the wire."""
    return b'{"ok":' + message.model_dump_json(exclude_defaults=True).encode() + b"}"


def encode_error(error: GenieError) -> bytes:
    """A failure on the wire: every error of a GenieErrors, each whole."""
    errors = error.errors if isinstance(error, GenieErrors) else (error,)
    return canonical.compact({"errors": [_plain(e.to_json()) for e in errors]}).encode()


def _plain(value: Any) -> Any:
    """The value with everything that strict JSON refuses (floats, other objects) as text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= canonical.MAX_SAFE_INT else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)


def decode(model: type[M], data: bytes) -> M:
    """Read one message; GenieError GEN0509 says where it is malformed, never what it held."""
    try:
        return model.model_validate(_parse(data))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise _malformed(model, f"{path}: {first['msg']}") from None


def decode_reply(model: type[M], data: bytes) -> M:
    """Read a reply: the message, or the peer's error raised as ours."""
    body = _parse(data)
    if isinstance(body, dict) and set(body) == {"ok"}:
        try:
            return model.model_validate(body["ok"])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(str(part) for part in first["loc"])
            raise _malformed(model, f"{path}: {first['msg']}") from None
    if isinstance(body, dict) and set(body) == {"errors"}:
        raise decode_errors(body["errors"])
    raise _malformed(model, "neither a reply nor an error")


def decode_errors(items: Any) -> GenieError:
    """The errors that a peer sent, as one."""
    if not isinstance(items, list) or not items or not all(isinstance(i, dict) for i in items):
        return GenieError("GEN0509", "the peer reported a failure that cannot be read")
    errors = [GenieError.from_json(item) for item in items[:64]]
    return errors[0] if len(errors) == 1 else GenieErrors(errors)


def _parse(data: bytes) -> Any:
    if len(data) > MAX_MESSAGE:
        raise GenieError("GEN0511", f"a message of more than {MAX_MESSAGE >> 20} MiB")
    try:
        return canonical.loads(data.decode("utf-8"))
    except (canonical.StrictJsonError, UnicodeDecodeError) as error:
        raise GenieError("GEN0509", "a message is no strict JSON", cause=str(error)) from None


def _malformed(model: type[BaseModel], cause: str) -> GenieError:
    return GenieError("GEN0509", f"the message is no {model.__name__}", cause=cause)
