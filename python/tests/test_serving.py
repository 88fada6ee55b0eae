"""Packs, weights and products on NumPy arrays, against float64."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quernel

N, K = 768, 256
LAYER = "model.layers.0.mlp.up_proj.weight"
STACK = f"int4.g128:3x{N}x{K}:f32-f32+bias"
EXPERTS = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)] + ["model.layers.0.mlp.gate_proj.weight"]
TYPES = ["f32-f32", "bf16-f32", "i8-f32", "f32~i8-f32", "bf16-bf16", "bf16-f32+bias", "f32-f32*scale+residual"]


@pytest.fixture(scope="module")
def pack(tune: Callable[..., Path]) -> Path:
    problems = [word for types in TYPES for word in ("--problem", f"int4.g128:{N}x{K}:{types}")]
    return tune("types", *problems)


@pytest.fixture
def context(pack: Path) -> Iterator[quernel.Context]:
    with quernel.open(pack) as made:
        yield made


@pytest.fixture(scope="module")
def planes(models: Path) -> quernel.Planes:
    return quernel.Checkpoint(models / "tiny-llama-gptq4").planes(LAYER)


@pytest.fixture
def weight(context: quernel.Context, planes: quernel.Planes) -> quernel.Weight:
    return context.bind(f"int4.g128:{N}x{K}:f32-f32").prepack(planes)


def dense(planes: quernel.Planes) -> np.ndarray[Any, Any]:
    """int4 without zero points: code 8 is zero."""
    group = planes.k // planes["scale"].shape[1]
    scale: np.ndarray[Any, Any] = np.repeat(planes["scale"].astype(float), group, axis=1)
    return scale * (planes["codes"].astype(float) - 8)


def draw(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def close(y: Any, x: Any, planes: quernel.Planes, unit: float = 2**-23) -> bool:
    """Whether Y is X . W^T, where each factor and each result may be wrong by a unit, and sums are float32."""
    w, x = dense(planes), np.asarray(x, float)
    return bool(np.all(abs(y - x @ w.T) <= (2 * unit + K * 2**-24) * (abs(x) @ abs(w).T)))


# ---- Products --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("types, unit", list(zip(TYPES[:5], [2**-23, 2**-9, 2**-7, 2**-7, 2**-8])))
def test_float_x_is_rounded_to_the_problems_type(
    context: quernel.Context, planes: quernel.Planes, types: str, unit: float
) -> None:
    gemm = context.bind(f"int4.g128:{N}x{K}:{types}")
    assert (gemm.level, gemm.problem) == (quernel.Level.EXACT, f"int4.g128:{N}x{K}:{types}")
    # Rows of one magnitude: the bound of 8-bit X is then that of its elements.
    x = np.sign(draw(5, K)) * (1 + abs(draw(5, K)) % 1)
    y = gemm.prepack(planes).gemm(x)
    assert y.dtype == np.float32 and y.shape == (5, N)
    assert close(y, x, planes, unit)


@pytest.mark.parametrize("shape", [(K,), (1, K), (7, K), (2, 3, K), (2, 1, 3, K)])
def test_leading_dimensions_stay(weight: quernel.Weight, planes: quernel.Planes, shape: tuple[int, ...]) -> None:
    x = draw(*shape)
    y = weight.gemm(x)
    assert y.shape == (*shape[:-1], N)
    assert close(y, x, planes)


def test_no_rows(weight: quernel.Weight) -> None:
    assert weight.gemm(draw(0, K)).shape == (0, N)


def test_rows_may_lie_apart(weight: quernel.Weight, planes: quernel.Planes) -> None:
    x, room = draw(6, 300)[::2, 20 : 20 + K], np.full((3, N + 5), 9, np.float32)
    out = room[:, :N]
    assert weight.gemm(x, out) is out
    assert close(out, x, planes)
    assert np.all(room[:, N:] == 9)


def test_bits_of_bf16(context: quernel.Context, planes: quernel.Planes) -> None:
    ones = np.full((2, K), 0x3F80, np.uint16)
    out = np.empty((2, N), np.uint16)
    context.bind(f"int4.g128:{N}x{K}:bf16-bf16").prepack(planes).gemm(ones, out)
    y = (out.astype(np.uint32) << 16).view(np.float32)
    assert close(y, np.ones((2, K)), planes, 2**-9)


@pytest.fixture
def experts(models: Path) -> list[quernel.Planes]:
    checkpoint = quernel.Checkpoint(models / "tiny-llama-gptq4")
    return [checkpoint.planes(name) for name in EXPERTS]


def test_a_stack_of_experts(tune: Callable[..., Path], experts: list[quernel.Planes]) -> None:
    x, bias = draw(4, K), draw(3, N)
    ids = np.array([[0, 2], [1, 1], [2, -1], [0, 1]], np.int32)
    with quernel.open(tune("stack", "--problem", STACK)) as context:
        gemm = context.bind(STACK)
        assert (gemm.experts, gemm.n, gemm.k) == (3, N, K)
        weight = gemm.prepack_experts(experts)
        y = np.full((4, 2, N), 9, np.float32)
        assert weight.gemm(x, y, bias=bias, ids=ids) is y
        for t, j in np.ndindex(4, 2):
            e = ids[t, j]
            assert np.all(y[t, j] == 9) if e < 0 else close(y[t, j] - bias[e], x[t], experts[e])
        y = weight.gemm(x, bias=bias, ids=ids[:, 0].copy())
        for t, e in enumerate(ids[:, 0]):
            assert close(y[t] - bias[e], x[t], experts[e])
        y = weight.gemm(x, bias=bias, offsets=np.array([0, 1, 1, 4], np.int32))
        assert close(y[:1] - bias[0], x[:1], experts[0]) and close(y[1:] - bias[2], x[1:], experts[2])
        for rows, why in [
            ({}, "wants ids or offsets"),
            ({"ids": ids, "offsets": ids}, "wants ids or offsets"),
            ({"ids": ids[:2]}, r"ids has the shape \[2, 2\]; x asks for \[4\]"),
            ({"ids": ids[:, :1]}, "ids must be contiguous"),
            ({"offsets": ids[0]}, "last dimension must be 4"),
            ({"offsets": np.zeros((2, 4), np.int32)}, r"offsets has the shape \[2, 4\]; one row of 4 is wanted"),
            ({"ids": ids + 1}, "is expert 3, the stack has 3"),
        ]:
            with pytest.raises(quernel.ArgumentError, match=why):
                weight.gemm(x, bias=bias, **rows)
        with pytest.raises(quernel.ArgumentError, match="planes of 2 experts; the problem has 3"):
            gemm.prepack_experts(experts[:2])


def test_one_weight_has_no_experts(weight: quernel.Weight) -> None:
    with pytest.raises(quernel.ArgumentError, match="wants no ids or offsets"):
        weight.gemm(draw(2, K), ids=np.zeros(2, np.int32))


def test_x_in_8_bits_comes_with_scales(context: quernel.Context, planes: quernel.Planes) -> None:
    weight = context.bind(f"int4.g128:{N}x{K}:i8-f32").prepack(planes)
    x, scale = (draw(3, K) * 30).astype(np.int8), np.array([1, 0.5, 2], np.float32)
    assert close(weight.gemm(x, x_scale=scale), x * scale[:, None], planes)
    with pytest.raises(quernel.ArgumentError, match="wants x_scale"):
        weight.gemm(x)


def test_floats_of_any_kind(context: quernel.Context, weight: quernel.Weight, planes: quernel.Planes) -> None:
    x = draw(3, K).astype(np.float16).astype(np.float32)
    other = context.bind(f"int4.g128:{N}x{K}:bf16-f32").prepack(planes)
    for dtype in ("<f2", ">f2", ">f4", "<f8", ">f8", np.longdouble):
        given = np.asfortranarray(x.astype(dtype))
        assert close(weight.gemm(given), x, planes) and close(other.gemm(given), x, planes, 2**-9)
    bf16 = pytest.importorskip("ml_dtypes", reason="no ml_dtypes").bfloat16
    x = x.astype(bf16).astype(np.float32)
    assert close(weight.gemm(x.astype(bf16)), x, planes) and close(other.gemm(x.astype(bf16)), x, planes)


def test_y_apart_from_x(tune: Callable[..., Path], models: Path) -> None:
    with quernel.open(tune("square", "--problem", f"int4.g128:{K}x{K}:f32-f32")) as context:
        planes = quernel.Checkpoint(models / "tiny-llama-gptq4").planes("model.layers.0.self_attn.q_proj.weight")
        weight = context.bind(f"int4.g128:{K}x{K}:f32-f32").prepack(planes)
        both = np.zeros((3, 2 * K), np.float32)
        x, y = both[:, :K], both[:, K:]
        x[...] = draw(3, K)
        for given, out in (x, x), (x, both[:, 1 : K + 1]), (x[:2], x[1:]):
            with pytest.raises(quernel.ArgumentError, match="y overlaps x"):
                weight.gemm(given, out)
        assert close(weight.gemm(x, y), x, planes)


def test_epilogues(context: quernel.Context, planes: quernel.Planes) -> None:
    x, bias = draw(2, K), draw(N)
    with_bias = context.bind(f"int4.g128:{N}x{K}:bf16-f32+bias").prepack(planes)
    assert close(with_bias.gemm(x, bias=bias) - bias, x, planes, 2**-9)
    weight = context.bind(f"int4.g128:{N}x{K}:f32-f32*scale+residual").prepack(planes)
    y = draw(2, N)
    before = y.copy()
    weight.gemm(x, y, residual=y, scale=2.0)
    np.testing.assert_allclose(y, 2 * x @ dense(planes).T + before, atol=1e-4)
    for scale in (2, np.float32(2), np.int64(2), np.array(2, np.float32), np.array([2], np.float32)):
        np.testing.assert_array_equal(weight.gemm(x, residual=before, scale=scale), y)


class ByDlpack:
    """An array of a library that NumPy does not know."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array, self.taken = array, 0

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.taken += 1
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_dlpack_without_copies(weight: quernel.Weight, planes: quernel.Planes) -> None:
    x, y = draw(6, 300)[::2, 20 : 20 + K], np.empty((3, N), np.float32)
    given, out = ByDlpack(x), ByDlpack(y)
    assert weight.gemm(given, out) is out
    assert (given.taken, out.taken) == (1, 1)
    assert close(y, x, planes)
    with pytest.raises(quernel.ArgumentError, match="out is needed: x is a ByDlpack"):
        weight.gemm(given)


# ---- What is refused -------------------------------------------------------------------------------------------------

BAD: dict[str, Callable[[], dict[str, Any]]] = {
    "x is not aligned": lambda: {"x": np.zeros(2 * 4 * K + 1, np.uint8)[1:].view(np.float32).reshape(2, K)},
    "x has elements of bool, which the library does not know": lambda: {"x": draw(2, K) > 0},
    "x has a mask": lambda: {"x": np.ma.masked_less(draw(2, K), 0)},
    "x has the shape [2, 255]: its last dimension must be 256": lambda: {"x": draw(2, 255)},
    "x has the shape []": lambda: {"x": np.zeros((), np.float32)},
    "rows of a matrix": lambda: {"x": draw(K, 2).T},
    "make it contiguous": lambda: {"x": np.broadcast_to(draw(K), (2, K))},
    "x has elements of complex64": lambda: {"x": draw(2, K).astype(np.complex64)},
    "x is i32": lambda: {"x": draw(2, K).astype(np.int32)},
    "x is a list": lambda: {"x": [1.0] * K},
    "out has the shape [2, 767]": lambda: {"out": np.zeros((2, N - 1), np.float32)},
    "out has 3 rows, and x asks for 2": lambda: {"out": np.zeros((3, N), np.float32)},
    "out is f64": lambda: {"out": np.zeros((2, N))},
    "out cannot be written": lambda: {"out": np.frombuffer(bytes(8 * N), np.float32).reshape(2, N)},
    "has no use for bias": lambda: {"bias": draw(N)},
}


@pytest.mark.parametrize("text", BAD)
def test_bad_operands(weight: quernel.Weight, text: str) -> None:
    out = np.full((2, N), 7, np.float32)
    given = {"x": draw(2, K), "out": out, **BAD[text]()}
    with pytest.raises(quernel.ArgumentError) as e:
        weight.gemm(**given)
    assert text in str(e.value)
    assert np.all(out == 7)


def test_bad_packs(tmp_path: Path, pack: Path) -> None:
    with pytest.raises(quernel.FileError, match="nowhere.qpack"):
        quernel.open("nowhere.qpack")
    damaged = tmp_path / "damaged.qpack"
    damaged.write_bytes(pack.read_bytes()[:-1] + b"?")
    with pytest.raises(quernel.FormatError):
        quernel.open(damaged)
    with pytest.raises(quernel.ArgumentError, match="threads"):
        quernel.open(pack, threads=100000)
    with pytest.raises(quernel.ArgumentError, match="threads"):
        quernel.open(pack, threads=2**32 + 1)  # 1 in 32 bits
    with pytest.raises(quernel.Error, match="toaster"):
        quernel.open(pack, "toaster")
    with pytest.raises(quernel.ArgumentError, match="NUL"):
        quernel.open(f"{pack}\0")


def test_bad_problems(context: quernel.Context) -> None:
    with pytest.raises(quernel.ArgumentError, match=r"FORMAT:\[Ex\]NxK"):
        context.bind("int4")
    with pytest.raises(quernel.NoKernelError, match="int3"):
        context.bind("int3.g128:64x128")
    with pytest.raises(quernel.ArgumentError, match="NUL"):
        context.bind(f"int4.g128:{N}x{K}\0")


def test_bad_planes(context: quernel.Context, planes: quernel.Planes) -> None:
    gemm = context.bind(f"int4.g128:{N}x{K}")
    codes, scale = planes["codes"], planes["scale"]
    with pytest.raises(quernel.ShapeError):
        gemm.prepack(planes.rows(slice(64)))
    with pytest.raises(quernel.ArgumentError, match="scale"):
        gemm.prepack(quernel.Planes("int4.g128", {"codes": codes}))
    with pytest.raises(quernel.ArgumentError):
        gemm.prepack(quernel.Planes("int4.g128", {"codes": codes, "scale": np.full_like(scale, np.nan)}))
    with pytest.raises(quernel.ArgumentError, match="a plane has rows and columns"):
        quernel.Planes("int4.g128", {"codes": codes, "scale": scale[0]})
    with pytest.raises(quernel.ArgumentError, match="does not hold bf16"):
        quernel.Planes("int4.g128", {"codes": codes, "scale": (codes, "bf16")})
    with pytest.raises(quernel.ArgumentError, match="'zero': format '.*' has no such plane"):
        gemm.prepack(quernel.Planes("int4.g128", {"codes": codes, "scale": scale, "zero": codes}))
    for perm, why in (np.arange(3), "shape"), (np.arange(K) / 1, "float64"), (np.arange(K) + 2**32, "goes up to"):
        with pytest.raises(quernel.ArgumentError, match=f"perm .*{why}"):
            quernel.Planes("int4.g128", {"codes": codes, "scale": scale}, perm)
    for several, why in ([planes, planes], "no stack of experts"), ([], "planes of 0 experts"):
        with pytest.raises(quernel.ArgumentError, match=why):
            gemm.prepack_experts(several)


# ---- Ownership and threads -------------------------------------------------------------------------------------------


def test_closing_a_context_closes_what_it_made(pack: Path, planes: quernel.Planes) -> None:
    with quernel.open(pack) as context:
        gemm = context.bind(f"int4.g128:{N}x{K}")
        weight = gemm.prepack(planes)
    for use in (lambda: weight.gemm(draw(K)), lambda: gemm.problem, lambda: context.problems):
        with pytest.raises(quernel.Error, match="is closed"):
            use()
    context.close()


def test_a_weight_keeps_what_it_needs(pack: Path, planes: quernel.Planes) -> None:
    weight = quernel.open(pack).bind(f"int4.g128:{N}x{K}:f32-f32").prepack(planes)
    gc.collect()
    assert close(weight.gemm(draw(2, K)), draw(2, K), planes)


def test_planes_keep_their_checkpoint(models: Path, planes: quernel.Planes) -> None:
    codes = quernel.Checkpoint(models / "tiny-llama-gptq4").planes(LAYER)["codes"]
    gc.collect()
    assert np.array_equal(codes, planes["codes"])


def test_a_weight_of_another_context(pack: Path, planes: quernel.Planes, weight: quernel.Weight) -> None:
    with quernel.open(pack) as other, pytest.raises(quernel.ArgumentError, match="another context"):
        other.bind(f"int4.g128:{N}x{K}:f32-f32").run(weight, draw(2, K))


def test_threads_multiply_at_the_same_time(weight: quernel.Weight) -> None:
    x = draw(64, K)
    rows = [weight.gemm(x[i : i + 8]) for i in range(0, 64, 8)]
    failed: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            if not np.array_equal(weight.gemm(x[8 * i : 8 * i + 8]), rows[i]):
                failed.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


# Memory whose first reader waits until `go` is 1, for some seconds at most; `went` says whether it was.
GATE = """
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
volatile int began, go, went;
static void *room;
static size_t size;
static struct sigaction before;
void *gate_room(size_t bytes) {
  size = bytes;
  room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return room == MAP_FAILED ? NULL : room;
}
static void hold(int signal) {
  (void)signal;
  began = 1;
  for (int i = 0; i < 2000 && !go; i++) nanosleep(&(struct timespec){0, 10000000}, NULL);
  went = go;
  mprotect(room, size, PROT_READ);
}
int gate_shut(void) {
  struct sigaction here = {.sa_handler = hold};
  return sigaction(SIGSEGV, &here, &before) || mprotect(room, size, PROT_NONE);
}
void gate_remove(void) { sigaction(SIGSEGV, &before, NULL); }
"""


class Gate:
    """Copies of an array that hold up who reads them first."""

    def __init__(self, folder: Path) -> None:
        (folder / "gate.c").write_text(GATE)
        subprocess.run(["cc", "-shared", "-fPIC", folder / "gate.c", "-o", folder / "gate.so"], check=True)
        self.library = ctypes.CDLL(str(folder / "gate.so"))
        self.library.gate_room.restype, self.library.gate_room.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self.began, self.go, self.went = (ctypes.c_int.in_dll(self.library, name) for name in ("began", "go", "went"))

    def copy(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        address = self.library.gate_room(array.nbytes)
        assert address
        room = np.ctypeslib.as_array((ctypes.c_uint8 * array.nbytes).from_address(address))
        out = room.view(array.dtype).reshape(array.shape)
        out[...] = array
        assert not self.library.gate_shut()
        return out


@pytest.mark.parametrize("call", ["gemm", "prepack"])
def test_other_threads_run_while_the_library_works(
    weight: quernel.Weight, planes: quernel.Planes, tmp_path: Path, call: str
) -> None:
    """The call cannot end before another thread of Python has run."""
    gate, x = Gate(tmp_path), draw(2, K)
    done: list[Any] = []
    if call == "gemm":
        held = gate.copy(x)

        def work() -> None:
            done.append(weight.gemm(held))
    else:
        held_planes = quernel.Planes(planes.format, {"codes": gate.copy(planes["codes"]), "scale": planes["scale"]})

        def work() -> None:
            done.append(weight.bound.prepack(held_planes).gemm(x))

    try:
        thread = threading.Thread(target=work)
        thread.start()
        while not gate.began.value and thread.is_alive():
            time.sleep(0.001)
        gate.go.value = 1
        thread.join()
    finally:
        gate.library.gate_remove()
    assert gate.began.value and gate.went.value, "the call waited for this thread in vain"
    assert close(done[0], x, planes)


def test_a_child_of_fork_is_told(weight: quernel.Weight) -> None:
    child = os.fork()
    if not child:
        try:
            weight.gemm(draw(K))
        except quernel.Error as e:
            os._exit(0 if "before fork()" in str(e) else 2)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
