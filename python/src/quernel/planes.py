"""Planes: a weight in neutral form, one code an element, with scales and zero points beside it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from ctypes import POINTER
from typing import Any

import numpy as np

from . import _c, arrays
from ._c import Type
from .errors import ArgumentError, text

Array = np.ndarray[Any, Any]


class Planes:
    """A weight W[N,K] of a format, "int4.g128": what `Gemm.prepack` takes.

    planes: by the names of the format, "codes" [N, K] and for example "scale" [N, K / group]: NumPy arrays, or a pair
        of bits and their type where NumPy has none: (uint16 array, "bf16"). Contiguous ones are not copied.
    perm: act-order, None or int32 [K]: column j of the codes multiplies X[:, perm[j]].

    Raises ArgumentError for what no plane can be; `Gemm.prepack` compares them with the format.
    """

    def __init__(self, format: str, planes: Mapping[str, Array | tuple[Array, str]], perm: Array | None = None) -> None:
        if not 0 < len(planes) <= _c.MAX_PLANES or "codes" not in planes:
            raise ArgumentError(f"a weight has codes, and at most {_c.MAX_PLANES} planes: {list(planes)}")
        self.format = format
        self.planes = {name: _plane(name, plane) for name, plane in planes.items()}
        self.n, self.k = self.planes["codes"][0].shape
        self.perm = None if perm is None else _perm(np.asarray(perm), self.k)
        self._struct = self._fill()

    def __getitem__(self, name: str) -> Array:
        """A plane, of types that NumPy does not have the bits."""
        return self.planes[name][0]

    def type(self, name: str) -> str:
        """The type of a plane's elements, "f16"."""
        return self.planes[name][1].name.lower()

    @property
    def pointer(self) -> Any:
        """For the C interface; it lives as long as this object."""
        return ctypes.byref(self._struct)

    def rows(self, index: Array | slice) -> Planes:
        """The weight with these rows, in this order. Raises ArgumentError where rows share a scale in blocks."""
        if self._block > 1:
            raise ArgumentError(f"'{self.format}' has scales for {self._block} rows, which cannot be taken apart")
        chosen = {
            name: (array[index] if len(array) == self.n else array, kind.name.lower())
            for name, (array, kind) in self.planes.items()
        }
        return Planes(self.format, chosen, self.perm)

    @property
    def _block(self) -> int:
        """How many rows share a scale: R of a format with blocks, .bRxC."""
        found = re.search(r"\.b(\d+)x\d+", self.format)
        return int(found[1]) if found else 1

    @staticmethod
    def stack(parts: Sequence[Planes]) -> Planes:
        """One weight that has the rows of all of them, such as q, k and v.

        Raises ArgumentError if formats, K, order of columns or what holds for the whole tensor differ.
        """
        first, joined = parts[0], {}
        for part in parts:
            if (part.format, part.k) != (first.format, first.k) or not np.array_equal(_order(part), _order(first)):
                raise ArgumentError("these weights differ in format, in K or in act-order")
        for name, (array, kind) in first.planes.items():
            all_of_it = [part.planes[name][0] for part in parts]
            height = 1 if name == "codes" else first._block
            whole = all(len(a) * height == part.n for a, part in zip(all_of_it, parts))
            if not whole and (len(array) > 1 or any(not np.array_equal(a, array) for a in all_of_it)):
                raise ArgumentError(f"'{name}' does not hold for rows of these weights one by one, and is not the same")
            joined[name] = (np.concatenate(all_of_it) if whole else array, kind.name.lower())
        return Planes(first.format, joined, first.perm)

    def _fill(self) -> _c.Planes:
        out = _c.Planes(format=text("format", self.format), n=self.n, k=self.k, n_planes=len(self.planes))
        for slot, (name, (array, kind)) in zip(out.plane, self.planes.items()):
            slot.name, slot.type, slot.data = text("plane", name), kind, array.ctypes.data
            slot.rows, slot.cols = array.shape
        if self.perm is not None:
            out.perm = self.perm.ctypes.data_as(POINTER(ctypes.c_int32))
        return out


def _order(planes: Planes) -> Array:
    return np.arange(planes.k) if planes.perm is None else planes.perm


def _perm(perm: Array, k: int) -> Array:
    if perm.shape != (k,) or perm.dtype.kind not in "iu":
        raise ArgumentError(f"perm has the shape {list(perm.shape)}, of {perm.dtype}: K is {k}, of whole numbers")
    out = np.ascontiguousarray(perm, np.int32)
    if not np.array_equal(out, perm):
        raise ArgumentError(f"perm goes up to {perm.max()}: K is {k}")
    return out


def _plane(name: str, plane: Array | tuple[Array, str]) -> tuple[Array, Type]:
    array, kind = plane if isinstance(plane, tuple) else (plane, None)
    array = np.ascontiguousarray(array)
    if array.ndim != 2:
        raise ArgumentError(f"'{name}' has the shape {list(array.shape)}: a plane has rows and columns")
    own = arrays.view(array, f"'{name}'").type
    known = Type(_c.serving.qn_type_from_name(kind.encode())) if kind else own
    if arrays.HOLDER.get(known) is not arrays.HOLDER[own]:
        raise ArgumentError(f"'{name}' is {array.dtype}, which does not hold {kind}")
    return array, known
