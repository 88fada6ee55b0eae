"""A pack, a problem, a weight, a product: qn_open, qn_bind, qn_prepack and qn_run."""

from __future__ import annotations

import ctypes
import os
import re
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from . import _c, arrays
from ._c import Level, Type
from .errors import ArgumentError, check, failure, text
from .owned import Owned
from .planes import Planes

# ---- Context ---------------------------------------------------------------------------------------------------------


class Context(Owned):
    """An open pack on one device, made by `open`.

    Threads: any number may multiply at the same time. `bind`, `prepack` and `close` wait for each other; close when no
    product runs.
    """

    def __init__(self, path: str | os.PathLike[str], options: _c.OpenOptions, device: str) -> None:
        out, why = ctypes.c_void_p(), ctypes.create_string_buffer(1024)
        status = _c.serving.qn_open(text("pack", path), options, out, why, len(why))
        if status:
            raise failure(status, why.value)
        self.device = device
        self._lock = threading.RLock()
        self._room = threading.local()
        self._place = (arrays.CPU, 0)
        if device.startswith("cuda"):
            self._place = (arrays.CUDA, int(device.partition(":")[2] or 0))
        self._made: weakref.WeakSet[Owned] = weakref.WeakSet()
        super().__init__(out, _c.serving.qn_close, self._lock)

    def close(self) -> None:
        """Free its weights and gemms, then itself."""
        for made in list(self._made):
            made.close()
        super().close()

    @property
    def problems(self) -> list[str]:
        """What was tuned, by its full spelling."""

        def each() -> Iterator[str]:
            i = 0
            while name := _c.serving.qn_problem_at(self.pointer, i):
                yield name.decode()
                i += 1

        return list(each())

    @property
    def hash(self) -> str:
        """128 bits of the pack's contents, as 32 hexadecimal digits."""
        return str(_c.serving.qn_pack_hash(self.pointer), "ascii")

    @property
    def misses(self) -> int:
        """How many products were of a problem that the pack does not hold exactly."""
        return int(_c.serving.qn_misses(self.pointer))

    def bind(self, problem: str) -> Gemm:
        """Resolve a problem, "int4.g128:768x256" or "int4.g128:768x256:bf16-f32", and load its kernels.

        Raises ArgumentError (spelling), NoKernelError (nothing for this format and these types) and what qn_bind lists.
        """
        return Gemm(self, problem)

    def _workspace(self, size: int) -> int:
        """The address of so many bytes of the host for a call of this thread, aligned to 256."""
        block: np.ndarray[Any, Any] | None = getattr(self._room, "block", None)
        if block is None or block.size < size + 256:
            block = self._room.block = np.empty(size + 256, np.uint8)
            self._room.address = -(-block.ctypes.data // 256) * 256
        return int(self._room.address)


# ---- Gemm ------------------------------------------------------------------------------------------------------------

_SHAPE = re.compile(r":(?:(\d+)x)?(\d+)x(\d+)")
_SERVED = re.compile(r"[^:]+:[\dx]+:(\w+)(?:~\w+)?-([a-z0-9]+)(.*)")
_SCALED = {Type.I8, Type.E4M3, Type.E5M2}  # types of X that come with a scale for each row
_FLOATS = {Type.F16, Type.BF16, Type.F32}


def _type(name: str) -> Type:
    return Type(_c.serving.qn_type_from_name(name.encode()))


class Gemm(Owned):
    """A problem that was bound: Y[M,N] = epilogue(X[M,K] . W[N,K]^T) for every M. Made by `Context.bind`.

    `n`, `k`; `experts`: of a stack, ExNxK, else 0.
    """

    def __init__(self, context: Context, problem: str) -> None:
        out = ctypes.c_void_p()
        with context._lock:
            check(_c.serving.qn_bind(context.pointer, text("problem", problem), out))
        super().__init__(out, _c.serving.qn_gemm_free, context._lock, context)
        context._made.add(self)
        self.context = context
        shape, served = _SHAPE.search(problem), _SERVED.fullmatch(self.problem)
        assert shape and served, (problem, self.problem)
        self.experts, self.n, self.k = int(shape[1] or 0), int(shape[2]), int(shape[3])
        self.x_type, self.y_type, self.epilogue = _type(served[1]), _type(served[2]), served[3]
        self.columns = self.n // 2 if "*gate" in self.epilogue else self.n

    @property
    def problem(self) -> str:
        """The problem that serves, with its types; of another shape if `level` says so."""
        return str(_c.serving.qn_gemm_problem(self.pointer), "utf-8")

    @property
    def level(self) -> Level:
        return Level(_c.serving.qn_gemm_level(self.pointer))

    def kernel(self, m: int) -> str:
        """The kernel that serves M tokens."""
        return str(_c.serving.qn_gemm_kernel(self.pointer, m), "utf-8")

    @property
    def weight_bytes(self) -> int:
        """Bytes on the device of a weight of this problem; a permutation takes 4 K more."""
        return int(_c.serving.qn_weight_bytes(self.pointer))

    def prepack(self, planes: Planes) -> Weight:
        """Rearrange a weight for the kernels, on the device. Afterwards the planes may go.

        Raises ShapeError (another N or K), ArgumentError (a plane is missing or of another type, a scale is not finite,
        a code is too large), NoKernelError (act-order, and no kernel for it).
        """
        return Weight(self, [planes])

    def prepack_experts(self, planes: Iterable[Planes]) -> Weight:
        """The same for a stack of experts, whose planes come in order, each when the one before is packed. Raises
        ArgumentError for another number."""
        return Weight(self, planes)

    def run(
        self,
        weight: Weight,
        x: Any,
        out: Any = None,
        *,
        x_scale: Any = None,
        bias: Any = None,
        residual: Any = None,
        scale: Any = None,
        ids: Any = None,
        offsets: Any = None,
    ) -> Any:
        """Y = epilogue(X . W^T), as `Weight.gemm` says, with any weight of this format, shape and layout."""
        if weight.context is not self.context:
            raise ArgumentError("the weight is of another context")
        if isinstance(x, np.ndarray):
            x, x_scale = self._rounded(x, x_scale)
        stream = arrays.current_stream(self.context._place)
        xs = self._view(x, "x", self.x_type, stream)
        tokens, ldx = xs.rows("x", self.k)
        routes, leading, keep_rows = self._routes(xs.shape[:-1], stream, ids, offsets)
        m = tokens * max(1, routes.topk)
        y = arrays.like(x, (*leading, self.columns), self.y_type) if out is None else out
        ys = self._view(y, "out", self.y_type, stream, write=True)
        rows, ldy = ys.rows("out", self.columns)
        if rows != m:
            raise ArgumentError(f"out has {rows} rows, and x asks for {m}")
        args = _c.Args(x=xs.address, y=ys.address, m=m, ldx=ldx, ldy=ldy, stream=stream or None)
        operands = self._operands(args, tokens, stream, x_scale, bias, residual, scale)
        keep = [xs, ys, keep_rows, operands, self._scratch(args)]
        if self.experts:
            check(_c.serving.qn_run_grouped(self.pointer, weight.pointer, args, routes))
        else:
            check(_c.serving.qn_run(self.pointer, weight.pointer, args))
        del keep
        return arrays.widened(y) if out is None and self.y_type == Type.BF16 and isinstance(y, np.ndarray) else y

    def _view(self, array: Any, what: str, kind: Type, stream: int, write: bool = False) -> arrays.View:
        """The view of an operand of this type on the context's device."""
        v = arrays.view(array, what, stream, write)
        bits = isinstance(array, np.ndarray) and arrays.HOLDER[v.type] is arrays.HOLDER[kind]
        if v.type != kind and not bits:
            raise ArgumentError(f"{what} is {v.type.name.lower()}: '{self.problem}' wants {kind.name.lower()}")
        if v.device != self.context._place:
            raise ArgumentError(f"{what} is on another device than the context, which is on {self.context.device}")
        return v

    def _routes(
        self, leading: tuple[int, ...], stream: int, ids: Any, offsets: Any
    ) -> tuple[_c.Rows, tuple[int, ...], object]:
        """Which rows of X, of these leading dimensions, meet which experts; those of Y; what must live as long."""
        if bool(self.experts) != ((ids is None) != (offsets is None)):
            raise ArgumentError(f"'{self.problem}' wants {'ids or offsets' if self.experts else 'no ids or offsets'}")
        if not self.experts:
            return _c.Rows(), leading, None
        if ids is None:
            v = self._view(offsets, "offsets", Type.I32, stream)
            if v.rows("offsets", self.experts + 1)[0] != 1:
                raise ArgumentError(f"offsets has the shape {list(v.shape)}; one row of {self.experts + 1} is wanted")
            return _c.Rows(offsets=v.address, n_offsets=self.experts + 1), leading, v
        v = self._view(ids, "ids", Type.I32, stream)
        topk = 1 if v.shape == leading else v.shape[-1] if v.shape[:-1] == leading else 0
        if not topk:
            raise ArgumentError(f"ids has the shape {list(v.shape)}; x asks for {list(leading)}, or one dimension more")
        if v.rows("ids", v.shape[-1])[1] != v.shape[-1]:
            raise ArgumentError("ids must be contiguous")
        return _c.Rows(ids=v.address, topk=topk), v.shape, v

    def _rounded(self, x: np.ndarray[Any, Any], x_scale: Any) -> tuple[np.ndarray[Any, Any], Any]:
        """X in float as this problem wants it, with a scale for each row if it has any; else X as it is."""
        if not arrays.is_float(x) or arrays.type_of(x) == self.x_type:
            return x, x_scale
        if x_scale is not None:
            raise ArgumentError(f"x_scale is for x in {self.x_type.name.lower()}, and x is {x.dtype}")
        if self.x_type in _SCALED:
            return arrays.quantized(x, self.x_type)
        return arrays.converted(x, self.x_type), None

    def _operands(
        self, args: _c.Args, tokens: int, stream: int, x_scale: Any, bias: Any, residual: Any, scale: Any
    ) -> list[object]:
        """What else the problem reads, into `args`; what must live as long."""
        given = {"x_scale": x_scale, "bias": bias, "residual": residual, "scale": scale}
        wanted = {
            "x_scale": (self.x_type in _SCALED, Type.F32, 1, tokens),
            "bias": ("+bias" in self.epilogue, Type.F32, max(1, self.experts), self.n),
            "residual": ("+residual" in self.epilogue, self.y_type, args.m, self.columns),
            "scale": ("*scale" in self.epilogue, Type.F32, 1, max(1, self.experts)),
        }
        keep: list[object] = []
        for name, (wants, kind, lines, cols) in wanted.items():
            array = given[name]
            if wants != (array is not None):
                raise ArgumentError(f"'{self.problem}' {'wants' if wants else 'has no use for'} {name}")
            if array is None:
                continue
            if name == "scale" and isinstance(array, (int, float, np.floating, np.integer)):
                array = arrays.number(self.context._place, float(array))
            v = self._view(array, name, kind, stream)
            rows, distance = v.rows(name, cols)
            if rows != lines or name == "bias" and distance != cols:
                raise ArgumentError(f"{name} has the shape {list(v.shape)}; {[lines, cols]}, dense, is wanted")
            setattr(args, name, v.address)
            if name == "residual":
                args.ld_residual = distance
            keep.append(v)
        return keep

    def _scratch(self, args: _c.Args) -> object:
        """Workspace and counters of one call, into `args`."""
        workspace = _c.serving.qn_gemm_workspace(self.pointer, args.m)
        if self.context._place[0] == arrays.CPU:
            args.workspace = self.context._workspace(workspace)
            return None
        counters = _c.serving.qn_gemm_counters(self.pointer, args.m)
        keep = arrays.device_bytes(self.context._place, workspace), arrays.device_bytes(self.context._place, counters)
        args.workspace, args.counters = keep[0].data_ptr(), keep[1].data_ptr()
        return keep


class Weight(Owned):
    """A weight in the layout of the kernels, on the device, or a stack of them. Made by `Gemm.prepack` or
    `Gemm.prepack_experts`; keeps it, `bound`."""

    def __init__(self, gemm: Gemm, planes: Iterable[Planes]) -> None:
        out, serving = ctypes.c_void_p(), _c.serving
        packed, orders = 0, False
        with gemm.context._lock:
            try:
                for expert in planes:
                    if packed and not gemm.experts:
                        raise ArgumentError(f"planes of several weights: '{gemm.problem}' is no stack of experts")
                    if gemm.experts:
                        check(serving.qn_prepack_expert(gemm.pointer, packed, expert.pointer, out))
                    else:
                        check(serving.qn_prepack(gemm.pointer, expert.pointer, out))
                    packed, orders = packed + 1, orders or expert.perm is not None
                if packed < (gemm.experts or 1):
                    raise ArgumentError(f"planes of {packed} experts; the problem has {gemm.experts or 'one weight'}")
            except BaseException:
                serving.qn_weight_free(out)
                raise
        super().__init__(out, _c.serving.qn_weight_free, gemm.context._lock, gemm.context)
        gemm.context._made.add(self)
        self.context, self.bound = gemm.context, gemm
        self.bytes = gemm.weight_bytes + (4 * gemm.k * packed if orders else 0)  # on the device

    def gemm(self, x: Any, out: Any = None, **operands: Any) -> Any:
        """Y = epilogue(X . W^T).

        x: [..., K], rows at even distances, of the problem's type of X, on the context's device: a NumPy array, or any
            with DLPack, which is not copied. Floats in NumPy of another type are rounded to it, with a scale for each
            row where X has 8 bits. What NumPy has no type for may come as its bits: uint16 for bf16, uint8 for 8-bit
            floats.
        out: [..., N], N / 2 with *gate, of the problem's type of Y, apart from x; None: a new array. NumPy gets float32
            where Y is bf16.
        x_scale [M] float32, where x itself has 8 bits; bias [N] float32, residual (of the shape and type of Y; may be
            out), scale (a number, or one float32): where the problem's epilogue reads them.

        ids [..., topk] int32: of a stack, the experts that each row of x meets, below 0 none; Y is then [..., topk, N],
            and with ids of the leading dimensions of x [..., N]. offsets [E + 1] int32: instead, where the rows of each
            expert begin in x, which is sorted by them. bias is then [E, N], scale [E]. Rows that meet none are not
            written.

        Returns Y. Any thread; other threads run Python meanwhile. Raises ArgumentError before anything is written.
        On the host Y is complete. On CUDA it is ordered on PyTorch's current stream, and the workspace is PyTorch's
        memory; this has not been run on a GPU yet.
        """
        return self.bound.run(self, x, out, **operands)


# ---- The door --------------------------------------------------------------------------------------------------------


def open(
    pack: str | os.PathLike[str],
    device: str = "host",
    *,
    threads: int = 0,
    deterministic: bool = False,
    batch_invariant: bool = False,
) -> Context:
    """Open a pack on a device: "host", "host:4" (threads) or "cuda:0".

    A pack is native code: open only what you would execute. `threads`: of the host; 0: as many as the pack was tuned
    with, at most the CPUs that this process may use. `deterministic`, `batch_invariant`: see qn_open_options.
    Raises FileError, FormatError, DeviceError, ArgumentError. On CUDA this has not been run yet.
    """
    if ctypes.c_int(threads).value != threads:
        raise ArgumentError(f"{threads} threads")
    options = _c.OpenOptions(
        device=text("device", device), threads=threads, deterministic=deterministic, batch_invariant=batch_invariant
    )
    return Context(pack, options, device)
