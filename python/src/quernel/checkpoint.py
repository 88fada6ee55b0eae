"""Checkpoints as planes: safetensors and GGUF in the dialects that libquernel-io reads."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from ctypes import POINTER
from typing import Any, TypeVar

import numpy as np

from . import _c, arrays
from ._c import Type
from .errors import ArgumentError, check_io, text
from .owned import Owned
from .planes import Planes


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A weight of a checkpoint: see qn_tensor in quernel_io.h for each field."""

    name: str
    dialect: str
    format: str | None
    refusal: str | None
    activation: str | None
    tied_to: str | None
    role: str
    same_x: str | None
    slices: int
    n: int
    k: int
    bytes: int
    quantized: bool
    linear: bool


@dataclasses.dataclass(frozen=True)
class Stack:
    """The experts of a layer as one weight: see qn_stack in quernel_io.h. `problem`: without types, FORMAT:ExNxK."""

    name: str
    format: str | None
    refusal: str | None
    experts: int
    n: int
    k: int

    @property
    def problem(self) -> str:
        return f"{self.format}:{self.experts}x{self.n}x{self.k}"


# Types of tensors beside weights, by their names in safetensors.
_OTHER_TYPES = {"BOOL": np.bool_, "I16": np.int16, "I64": np.int64, "U64": np.uint64}


def _text(s: bytes | None) -> str | None:
    return None if s is None else s.decode(errors="replace")


_Record = TypeVar("_Record", Tensor, Stack)


def _record(kind: type[_Record], t: Any) -> _Record:
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = getattr(t, field.name)
        fields[field.name] = _text(value) if isinstance(value, bytes) else value
    return kind(**fields)


class Checkpoint(Owned):
    """An open checkpoint: a folder with safetensors, one .safetensors file, or a .gguf. Nothing is read until asked.

    Any thread. Arrays and planes keep the checkpoint; after `close` they must not be used.
    Raises FileError, FormatError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        out = ctypes.c_void_p()
        check_io(_c.reading.qn_model_open(text("checkpoint", path), out))
        super().__init__(out, _c.reading.qn_model_close, threading.RLock())
        self.path = os.fspath(path)

    def release(self) -> None:
        """Give back the memory that holds what was read, as when all is prepacked. It is read anew where needed."""
        _c.reading.qn_model_release(self.pointer)

    def __iter__(self) -> Iterator[Tensor]:
        """Its weights, in the order of the file."""
        i = 0
        while t := _c.reading.qn_model_tensor(self.pointer, i):
            yield _record(Tensor, t.contents)
            i += 1

    def find(self, name: str) -> Tensor | None:
        """The weight of that name."""
        t = _c.reading.qn_model_find(self.pointer, text("weight", name))
        return _record(Tensor, t.contents) if t else None

    def planes(self, name: str, slice: int = 0) -> Planes:
        """The weight of that name, of a stack the matrix `slice`, from 0; without a copy where the file has planes.

        Raises KeyError, ShapeError (a weight that cannot be read: its `refusal`), ArgumentError (slice), FormatError.
        """
        t = _c.reading.qn_model_find(self.pointer, text("weight", name))
        if not t:
            raise KeyError(f"{self.path} has no weight {name}")
        out = POINTER(_c.Planes)()
        check_io(_c.reading.qn_model_planes(self.pointer, t, slice, out))
        return self._planes(out)

    @property
    def stacks(self) -> dict[str, Stack]:
        """Experts that are one weight, by name, in the order of the file."""
        found = (_record(Stack, s.contents) for s in self._stacks())
        return {stack.name: stack for stack in found}

    def experts(self, name: str) -> Iterator[Planes]:
        """The planes of a stack's experts, one after the other, as `Gemm.prepack_experts` takes them.

        Raises KeyError, ShapeError (it cannot be read as one weight: its `refusal`), FormatError.
        """
        for stack in self._stacks():
            if stack.contents.name == name.encode():
                for expert in range(stack.contents.experts):
                    out = POINTER(_c.Planes)()
                    check_io(_c.reading.qn_model_expert(self.pointer, stack, expert, out))
                    yield self._planes(out)
                return
        raise KeyError(f"{self.path} has no stack {name}")

    def _stacks(self) -> Iterator[Any]:
        i = 0
        while s := _c.reading.qn_model_stack(self.pointer, i):
            yield s
            i += 1

    def _planes(self, out: Any) -> Planes:
        """Planes of the library, which are freed when nobody refers to their arrays."""
        keep = Owned(out, _c.reading.qn_planes_free, threading.RLock(), self)
        p = out.contents
        planes = {
            plane.name.decode(): (
                _array(plane.data, (plane.rows, plane.cols), arrays.HOLDER[Type(plane.type)], keep),
                Type(plane.type).name.lower(),
            )
            for plane in p.plane[: p.n_planes]
        }
        perm = _array(ctypes.cast(p.perm, ctypes.c_void_p).value, (p.k,), np.int32, keep) if p.perm else None
        return Planes(p.format.decode(), planes, perm)

    def array(self, name: str) -> tuple[np.ndarray[Any, Any], str]:
        """A stored tensor and the type of its elements, without a copy; of types that NumPy does not have the bits.

        Raises KeyError, and ArgumentError for GGUF's blocks.
        """
        found = _c.reading.qn_model_find_raw(self.pointer, text("tensor", name))
        if not found:
            raise KeyError(f"{self.path} has no tensor {name}")
        raw = found.contents
        kind, shape = Type(raw.type), tuple(raw.dim[: raw.n_dims])
        if kind in arrays.HOLDER:
            return _array(raw.data, shape, arrays.HOLDER[kind], self), kind.name.lower()
        name_of_type = raw.dtype.decode()
        if name_of_type not in _OTHER_TYPES:
            raise ArgumentError(f"{name} has elements of {name_of_type}, which are no array")
        return _array(raw.data, shape, _OTHER_TYPES[name_of_type], self), name_of_type.lower()

    @property
    def config(self) -> dict[str, Any] | None:
        """config.json, if there is one."""
        size = ctypes.c_size_t()
        text = _c.reading.qn_model_config(self.pointer, size)
        found: dict[str, Any] | None = json.loads(ctypes.string_at(text, size.value)) if text else None
        return found

    def number(self, key: str) -> float | None:
        """The number of a key of a GGUF's header."""
        found = _c.reading.qn_model_find_meta(self.pointer, text("key", key))
        return found.contents.number if found else None

    def text(self, key: str) -> str | None:
        """The text of a key of a GGUF's header, or of a safetensors file's metadata."""
        found = _c.reading.qn_model_find_meta(self.pointer, text("key", key))
        return _text(ctypes.string_at(found.contents.data, found.contents.count)) if found else None


def _array(address: int | None, shape: tuple[int, ...], item: type[np.generic], keep: object) -> np.ndarray[Any, Any]:
    """Memory of the checkpoint as an array that cannot be written, and that keeps `keep`."""
    dtype = np.dtype(item)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    block = (ctypes.c_uint8 * size).from_address(address or 0)
    block._keep = keep  # type: ignore[attr-defined]
    out = np.ctypeslib.as_array(block).view(dtype)
    out.flags.writeable = False
    return out.reshape(shape)
