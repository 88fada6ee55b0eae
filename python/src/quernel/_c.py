"""The C interface, as quernel.h and quernel_io.h declare it: structs, functions, and the libraries that have them.

tests/test_c.py compares all of it with what a C compiler makes of the headers.
"""

from __future__ import annotations

import ctypes
import enum
from ctypes import POINTER, Structure, c_bool, c_char_p, c_double, c_float, c_int, c_int32, c_int64
from ctypes import c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

MAX_PLANES = 8
MAX_DIMS = 8


class Status(enum.IntEnum):
    """qn_status: what a call came to."""

    OK = 0
    E_NOMEM = 1
    E_ARG = 2
    E_IO = 3
    E_FORMAT = 4
    E_SHAPE = 5
    E_NO_KERNEL = 6
    E_DEVICE = 7
    E_CUDA = 8
    E_LIMIT = 9


class Level(enum.IntEnum):
    """qn_level: how a problem was resolved, best first."""

    EXACT = 0
    NEAREST_SHAPE = 1
    GENERIC = 2


class Type(enum.IntEnum):
    """qn_type: the type of an element."""

    NONE = 0
    U8 = 1
    U16 = 2
    U32 = 3
    I8 = 4
    I32 = 5
    F16 = 6
    BF16 = 7
    F32 = 8
    F64 = 9
    E4M3 = 10
    E5M2 = 11
    E8M0 = 12


# ---- Structs ---------------------------------------------------------------------------------------------------------


class Plane(Structure):
    _fields_ = [("name", c_char_p), ("type", c_int), ("rows", c_int64), ("cols", c_int64), ("data", c_void_p)]


class Planes(Structure):
    _fields_ = [
        ("format", c_char_p),
        ("n", c_int64),
        ("k", c_int64),
        ("n_planes", c_int),
        ("plane", Plane * MAX_PLANES),
        ("perm", POINTER(c_int32)),
        ("reserved", c_uint64 * 8),
    ]


class Allocator(Structure):
    _fields_ = [("resize", c_void_p), ("user", c_void_p)]


class OpenOptions(Structure):
    _fields_ = [
        ("device", c_char_p),
        ("threads", c_int),
        ("deterministic", c_int),
        ("batch_invariant", c_int),
        ("allocator", Allocator),
        ("reserved", c_uint64 * 6),
    ]


class Args(Structure):
    _fields_ = [
        ("x", c_void_p),
        ("x_scale", c_void_p),
        ("bias", c_void_p),
        ("y", c_void_p),
        ("m", c_int64),
        ("ldx", c_int64),
        ("ldy", c_int64),
        ("workspace", c_void_p),
        ("stream", c_void_p),
        ("counters", c_void_p),
        ("residual", c_void_p),
        ("scale", c_void_p),
        ("ld_residual", c_int64),
        ("reserved", c_uint64 * 4),
    ]


class Rows(Structure):
    _fields_ = [
        ("offsets", c_void_p),
        ("n_offsets", c_int64),
        ("ids", c_void_p),
        ("topk", c_int64),
        ("reserved", c_uint64 * 4),
    ]


class Raw(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("weight", c_char_p),
        ("dtype", c_char_p),
        ("type", c_int),
        ("n_dims", c_int),
        ("dim", c_int64 * MAX_DIMS),
        ("data", c_void_p),
        ("bytes", c_size_t),
    ]


class Tensor(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("dialect", c_char_p),
        ("format", c_char_p),
        ("refusal", c_char_p),
        ("activation", c_char_p),
        ("tied_to", c_char_p),
        ("slices", c_int64),
        ("n", c_int64),
        ("k", c_int64),
        ("bytes", c_uint64),
        ("quantized", c_bool),
        ("linear", c_bool),
        ("role", c_char_p),
        ("same_x", c_char_p),
        ("raw", POINTER(Raw)),
        ("activation_scale", c_float),
        ("activation_raw", POINTER(Raw)),
    ]


class Stack(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("format", c_char_p),
        ("refusal", c_char_p),
        ("experts", c_int64),
        ("n", c_int64),
        ("k", c_int64),
        ("tensor", POINTER(POINTER(Tensor))),
    ]


class Meta(Structure):
    _fields_ = [
        ("key", c_char_p),
        ("type", c_int),
        ("item", c_int),
        ("count", c_uint64),
        ("data", c_void_p),
        ("number", c_double),
        ("bits", c_uint64),
    ]


# ---- Functions: name, result, arguments ------------------------------------------------------------------------------

_Functions = dict[str, tuple[Any, list[Any]]]

SERVING: _Functions = {
    "qn_status_name": (c_char_p, [c_int]),
    "qn_status_text": (c_char_p, [c_int]),
    "qn_version": (c_char_p, []),
    "qn_type_name": (c_char_p, [c_int]),
    "qn_type_bits": (c_int, [c_int]),
    "qn_type_from_name": (c_int, [c_char_p]),
    "qn_open": (c_int, [c_char_p, POINTER(OpenOptions), POINTER(c_void_p), c_char_p, c_size_t]),
    "qn_close": (None, [c_void_p]),
    "qn_errmsg": (c_char_p, []),
    "qn_problem_at": (c_char_p, [c_void_p, c_int]),
    "qn_pack_hash": (c_char_p, [c_void_p]),
    "qn_bind": (c_int, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "qn_gemm_free": (None, [c_void_p]),
    "qn_gemm_level": (c_int, [c_void_p]),
    "qn_gemm_problem": (c_char_p, [c_void_p]),
    "qn_gemm_kernel": (c_char_p, [c_void_p, c_int64]),
    "qn_gemm_workspace": (c_size_t, [c_void_p, c_int64]),
    "qn_gemm_counters": (c_size_t, [c_void_p, c_int64]),
    "qn_weight_bytes": (c_size_t, [c_void_p]),
    "qn_prepack": (c_int, [c_void_p, POINTER(Planes), POINTER(c_void_p)]),
    "qn_weight_free": (None, [c_void_p]),
    "qn_prepack_expert": (c_int, [c_void_p, c_int64, POINTER(Planes), POINTER(c_void_p)]),
    "qn_run": (c_int, [c_void_p, c_void_p, POINTER(Args)]),
    "qn_run_grouped": (c_int, [c_void_p, c_void_p, POINTER(Args), POINTER(Rows)]),
    "qn_misses": (c_uint64, [c_void_p]),
    "qn_quantize_rows": (c_int, [c_void_p, c_int64, c_int64, c_int64, c_int, c_void_p, c_void_p]),
    "qn_convert": (c_int, [c_void_p, c_int, c_void_p, c_int, c_size_t]),
}

READING: _Functions = {
    "qn_model_open": (c_int, [c_char_p, POINTER(c_void_p)]),
    "qn_model_close": (None, [c_void_p]),
    "qn_model_release": (None, [c_void_p]),
    "qn_model_tensor": (POINTER(Tensor), [c_void_p, c_size_t]),
    "qn_model_find": (POINTER(Tensor), [c_void_p, c_char_p]),
    "qn_model_stack": (POINTER(Stack), [c_void_p, c_size_t]),
    "qn_model_raw": (POINTER(Raw), [c_void_p, c_size_t]),
    "qn_model_find_raw": (POINTER(Raw), [c_void_p, c_char_p]),
    "qn_model_remark": (c_char_p, [c_void_p]),
    "qn_model_config": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "qn_model_meta": (POINTER(Meta), [c_void_p, c_size_t]),
    "qn_model_find_meta": (POINTER(Meta), [c_void_p, c_char_p]),
    "qn_tensor_bpw": (c_double, [POINTER(Tensor)]),
    "qn_io_errmsg": (c_char_p, []),
    "qn_model_planes": (c_int, [c_void_p, POINTER(Tensor), c_int64, POINTER(POINTER(Planes))]),
    "qn_model_expert": (c_int, [c_void_p, POINTER(Stack), c_int64, POINTER(POINTER(Planes))]),
    "qn_planes_free": (None, [POINTER(Planes)]),
    "qn_planes_find": (POINTER(Plane), [POINTER(Planes), c_char_p]),
}

# What Python has no use for: functions that C code registers, and the writers of files.
UNUSED = {
    "qn_function_register",
    "qn_npy_write",
    "qn_safetensors_write",
    "qn_writer_open",
    "qn_writer_put",
    "qn_writer_close",
    "qn_writer_abandon",
}


# ---- Libraries -------------------------------------------------------------------------------------------------------


def _load(name: str, functions: _Functions) -> ctypes.CDLL:
    """The library of this package, else the one that the system's loader finds."""
    own = Path(__file__).parent / "lib" / name
    try:
        library = ctypes.CDLL(str(own) if own.exists() else name)
    except OSError as e:
        raise ImportError(
            f"{name} cannot be loaded: {e}. Install a wheel that carries it, or put its folder on LD_LIBRARY_PATH"
        ) from e
    for function, (result, arguments) in functions.items():
        entry = getattr(library, function)
        entry.restype, entry.argtypes = result, arguments
    return library


serving = _load("libquernel.so.0", SERVING)
reading = _load("libquernel-io.so.0", READING)
