"""Arrays as the library sees them: an address, a shape, strides, a type, a device. Nothing is copied here.

NumPy arrays are read by their interface, all others by DLPack: PyTorch, CuPy, JAX.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p, py_object
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _c
from ._c import Type
from .errors import ArgumentError, check

# Names of dtypes: NumPy's own, and those that ml_dtypes adds.
_NUMPY = {
    "uint8": Type.U8,
    "uint16": Type.U16,
    "uint32": Type.U32,
    "int8": Type.I8,
    "int32": Type.I32,
    "float16": Type.F16,
    "bfloat16": Type.BF16,
    "float32": Type.F32,
    "float64": Type.F64,
    "float8_e4m3fn": Type.E4M3,
    "float8_e5m2": Type.E5M2,
    "float8_e8m0fnu": Type.E8M0,
}

# Codes and bits of DLPack.
_DLPACK = {
    (1, 8): Type.U8,
    (1, 16): Type.U16,
    (1, 32): Type.U32,
    (0, 8): Type.I8,
    (0, 32): Type.I32,
    (2, 16): Type.F16,
    (4, 16): Type.BF16,
    (2, 32): Type.F32,
    (2, 64): Type.F64,
    (10, 8): Type.E4M3,
    (12, 8): Type.E5M2,
    (14, 8): Type.E8M0,
}

# What holds the elements of a type in NumPy: types that it does not have are integers of their width, their bits.
HOLDER: dict[Type, type[np.generic]] = {
    Type.U8: np.uint8,
    Type.U16: np.uint16,
    Type.U32: np.uint32,
    Type.I8: np.int8,
    Type.I32: np.int32,
    Type.F16: np.float16,
    Type.BF16: np.uint16,
    Type.F32: np.float32,
    Type.F64: np.float64,
    Type.E4M3: np.uint8,
    Type.E5M2: np.uint8,
    Type.E8M0: np.uint8,
}

CPU, CUDA, PINNED = 1, 2, 3  # DLPack's names of devices; pinned memory is the host's


@dataclass(frozen=True)
class View:
    """An array in memory. `strides` count elements; `keep` is what must live as long as the memory is used."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    type: Type
    device: tuple[int, int]
    keep: object

    def rows(self, what: str, cols: int) -> tuple[int, int]:
        """M and the distance of rows, in elements, of an array [..., cols] or [cols] whose rows lie at even distances.
        A number without dimensions is a row of one.

        Raises ArgumentError where `cols` differs, or where the leading dimensions are no rows of one matrix.
        """
        if not self.shape and cols == 1:
            return 1, 1
        if not self.shape or self.shape[-1] != cols:
            raise ArgumentError(f"{what} has the shape {list(self.shape)}: its last dimension must be {cols}")
        if 0 in self.shape:
            return 0, cols
        m, distance = 1, 0
        for size, stride in zip(self.shape[-2::-1], self.strides[-2::-1]):
            if size != 1:
                if m != 1 and stride != m * distance:
                    self._refuse(what)
                m, distance = m * size, stride if m == 1 else distance
        if cols > 1 and self.strides[-1] != 1 or m > 1 and distance < cols:
            self._refuse(what)
        return m, distance if m > 1 else cols

    def _refuse(self, what: str) -> None:
        raise ArgumentError(
            f"{what} has the shape {list(self.shape)} and strides of {list(self.strides)} elements: these are no"
            " rows of a matrix; make it contiguous"
        )


# ---- DLPack ----------------------------------------------------------------------------------------------------------


class _DLTensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = c_void_p, [py_object, c_char_p]


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _from_dlpack(array: Any, what: str, stream: int) -> View:
    """The capsule is kept and not consumed: the memory is given back when the view is gone."""
    if _is_torch(array):
        array = _plain(array, what)
    try:
        place, index = (int(part) for part in array.__dlpack_device__())
        # 0 is ambiguous in DLPack, whose 1 is the legacy default stream; on the CPU there is none.
        capsule = array.__dlpack__(stream=(stream or 1) if place == CUDA else None)
    except (BufferError, RuntimeError, TypeError, ValueError) as e:  # as each library likes
        raise ArgumentError(f"{what} cannot be read by DLPack: {e}") from e
    device = (CPU, 0) if place == PINNED else (place, index)
    t = _DLTensor.from_address(_capsule_pointer(capsule, b"dltensor"))
    kind = _DLPACK.get((t.code, t.bits))
    if kind is None or t.lanes != 1:
        raise ArgumentError(
            f"{what} has elements of {getattr(array, 'dtype', f'code {t.code} in {t.bits} bits')}, which the library"
            " does not know"
        )
    shape = tuple(t.shape[: t.ndim])
    strides = tuple(t.strides[: t.ndim]) if t.strides else _dense(shape)
    return View((t.data or 0) + t.byte_offset, shape, strides, kind, device, capsule)


def _is_torch(array: Any) -> bool:
    torch = sys.modules.get("torch")
    return bool(torch is not None and isinstance(array, torch.Tensor))


def _plain(tensor: Any, what: str) -> Any:
    """A tensor of PyTorch whose memory is what it says, without its gradient where none is recorded."""
    if tensor.is_neg():
        raise ArgumentError(f"{what} is negated, which its memory does not show: give {what}.resolve_neg()")
    recorded: bool = sys.modules["torch"].is_grad_enabled()
    return tensor if recorded else tensor.detach()


# ---- Any array -------------------------------------------------------------------------------------------------------


def type_of(array: np.ndarray[Any, Any]) -> Type | None:
    """The type of its elements, if the library knows it."""
    return _NUMPY.get(array.dtype.name) if array.dtype.isnative else None


def is_float(array: np.ndarray[Any, Any]) -> bool:
    """Whether its elements are floats of 16 bits or more, in whatever order of bytes; bf16 is of ml_dtypes."""
    return bool(array.dtype.kind == "f" or array.dtype.name == "bfloat16")


def view(array: Any, what: str, stream: int = 0, write: bool = False) -> View:
    """What there is to know of an array; `what` names it in errors, `stream` is where CUDA memory will be used."""
    if isinstance(array, np.ndarray):
        kind = type_of(array)
        if kind is None:
            raise ArgumentError(f"{what} has elements of {array.dtype}, which the library does not know")
        if isinstance(array, np.ma.MaskedArray):
            raise ArgumentError(f"{what} has a mask, which the library does not know: fill it")
        if write and not array.flags.writeable:
            raise ArgumentError(f"{what} cannot be written")
        size = array.dtype.itemsize
        if any(stride % size for stride in array.strides):
            raise ArgumentError(f"{what} has strides of {list(array.strides)} bytes, no multiples of {size}")
        strides = tuple(stride // size for stride in array.strides)
        return View(array.ctypes.data, array.shape, strides, kind, (CPU, 0), array)
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array, what, stream)
    raise ArgumentError(f"{what} is a {type(array).__name__}: a NumPy array, or one with DLPack, is needed")


# ---- New arrays ------------------------------------------------------------------------------------------------------


def like(array: Any, shape: tuple[int, ...], kind: Type) -> Any:
    """An array of the same library and device, whose elements may be anything."""
    if isinstance(array, np.ndarray):
        return np.empty(shape, HOLDER[kind])
    if _is_torch(array):
        return sys.modules["torch"].empty(shape, dtype=torch_type(kind), device=array.device)
    raise ArgumentError(f"out is needed: x is a {type(array).__name__}")


def torch_type(kind: Type) -> Any:
    """PyTorch's dtype of a type of X or Y."""
    import torch

    return {
        Type.F16: torch.float16,
        Type.BF16: torch.bfloat16,
        Type.F32: torch.float32,
        Type.I8: torch.int8,
        Type.E4M3: torch.float8_e4m3fn,
        Type.E5M2: torch.float8_e5m2,
    }[kind]


def current_stream(place: tuple[int, int]) -> int:
    """PyTorch's current stream of a CUDA device; 0 on the host."""
    if place[0] == CPU:
        return 0
    import torch

    return int(torch.cuda.current_stream(place[1]).cuda_stream)


def device_bytes(place: tuple[int, int], size: int) -> Any:
    """Zero bytes on a CUDA device, in the order of PyTorch's current stream."""
    import torch

    return torch.zeros(size, dtype=torch.uint8, device=f"cuda:{place[1]}")


def number(place: tuple[int, int], value: float) -> Any:
    """One float32 on a device."""
    if place[0] == CPU:
        return np.array([value], np.float32)
    import torch

    return torch.tensor([value], dtype=torch.float32, device=f"cuda:{place[1]}")


# ---- Other types, on the host ----------------------------------------------------------------------------------------


def converted(x: np.ndarray[Any, Any], kind: Type) -> np.ndarray[Any, Any]:
    """Floats as f16, bf16 or f32, dense, to nearest, ties to even; wider ones become bf16 by way of f32."""
    if kind != Type.BF16:
        with np.errstate(over="ignore"):  # what is beyond the largest becomes infinite
            return np.ascontiguousarray(x, HOLDER[kind])
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty(x.shape, np.uint16)
    check(_c.serving.qn_convert(x.ctypes.data, Type.F32, out.ctypes.data, Type.BF16, x.size))
    return out


def widened(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The bits of bf16 as float32."""
    x = np.ascontiguousarray(x)
    out = np.empty(x.shape, np.float32)
    check(_c.serving.qn_convert(x.ctypes.data, Type.BF16, out.ctypes.data, Type.F32, x.size))
    return out


def quantized(x: np.ndarray[Any, Any], kind: Type) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows of X in 8 bits, and the scale of each, as qn_quantize_rows makes them."""
    x = np.ascontiguousarray(x, np.float32)
    k = x.shape[-1] if x.ndim else 0
    m = x.size // k if k else 0
    out, scale = np.empty(x.shape, HOLDER[kind]), np.empty(m, np.float32)
    check(_c.serving.qn_quantize_rows(x.ctypes.data, m, k, k, kind, out.ctypes.data, scale.ctypes.data))
    return out, scale
