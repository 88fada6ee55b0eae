"""What the library refuses, as exceptions. Each has the library's own line of text."""

from __future__ import annotations

import os

from . import _c


class Error(Exception):
    """A call of the library failed; `status` says in which way."""

    status = _c.Status.OK


class OutOfMemory(Error, MemoryError):
    status = _c.Status.E_NOMEM


class ArgumentError(Error, ValueError):
    status = _c.Status.E_ARG


class FileError(Error, OSError):
    status = _c.Status.E_IO


class FormatError(Error, ValueError):
    """A file is damaged, or of a foreign version."""

    status = _c.Status.E_FORMAT


class ShapeError(Error, ValueError):
    status = _c.Status.E_SHAPE


class NoKernelError(Error, LookupError):
    """The pack has nothing for the problem."""

    status = _c.Status.E_NO_KERNEL


class DeviceError(Error, RuntimeError):
    """The device is not here, or is not fit for the pack."""

    status = _c.Status.E_DEVICE


class CudaError(Error, RuntimeError):
    status = _c.Status.E_CUDA


class LimitError(Error, ValueError):
    status = _c.Status.E_LIMIT


_OF_STATUS: dict[int, type[Error]] = {kind.status: kind for kind in Error.__subclasses__()}


def failure(status: int, text: bytes | None) -> Error:
    """The exception of a status, to be raised."""
    said = (text or b"").decode(errors="replace")
    return _OF_STATUS.get(status, Error)(said or (_c.serving.qn_status_text(status) or b"").decode())


def text(what: str, s: str | os.PathLike[str]) -> bytes:
    """A path or a name for the library, to which it ends at its first NUL."""
    out = os.fsencode(s)
    if b"\0" in out:
        raise ArgumentError(f"{what} {out!r} has a NUL in it")
    return out


def check(status: int) -> None:
    """Raise what a call of libquernel has just returned, on this thread."""
    if status:
        raise failure(status, _c.serving.qn_errmsg())


def check_io(status: int) -> None:
    """The same for libquernel-io."""
    if status:
        raise failure(status, _c.reading.qn_io_errmsg())
