"""Other people's kernels on the same shapes, timed as ours: cold weights, CUDA graphs, medians.

    python3 tests/gpu/peers.py FILE.csv

torch f16 is torch's own dense product (cuBLAS); int4pack is torch._weight_int4pack_mm (groups of 128, bf16); triton is
the plain kernel below, int4 with groups of 128 and f16 activations, the best of a few tiles. Each result is compared
with the product of the dequantized weight; one that is wrong gets no row. Without PyTorch or a GPU it says so and ends.
"""
import itertools
import os
import statistics
import sys

SIZES, TOKENS, GROUP = (8192, 4096), (1, 16, 64, 256, 2048), 128
CALLS, REPS, WARM_MS = 64, 9, 20  # as runtime/device_cuda.h and tuner/dense.c have them


def leave(why):
    print("peers: " + why)
    sys.exit(0)


try:
    import torch
except ImportError as missing:
    leave("no PyTorch: %s" % missing)
if not torch.cuda.is_available():
    leave("PyTorch sees no GPU")
try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None


def copies_of(nbytes):
    """So many copies that together they are four times the L2 cache; at least three."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return min(CALLS, 4 * cache // nbytes + 3)


def median_us(call, copies):
    """Median time of a call; a run of calls, with the copies in turn, is captured once and replayed."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(CALLS):
            call(i % copies)

    def milliseconds():
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    warm = 0
    while warm < WARM_MS:
        warm += milliseconds()
    return statistics.median(milliseconds() for _ in range(REPS)) * 1e3 / CALLS


def check(name, got, want):
    error = ((got.float() - want).norm() / want.norm()).item()
    if not error < 2e-2:
        raise RuntimeError("%s: its result is off by %.3g" % (name, error))


class Weight:
    """Random codes of 4 bits with a scale for each group: (code - 8) * scale."""

    def __init__(self, n, k):
        self.n, self.k = n, k
        self.codes = torch.randint(0, 16, (n, k), dtype=torch.int32, device="cuda")
        self.scale = torch.rand(n, k // GROUP, device="cuda") * 0.02 + 0.01
        self.scale = self.scale.bfloat16().half().float()  # exact in both types

    def dense(self):
        return (self.codes.float() - 8) * self.scale.repeat_interleave(GROUP, 1)


def torch_f16(w, m):
    weights = [w.dense().half() for _ in range(copies_of(2 * w.n * w.k))]
    x = torch.randn(m, w.k, device="cuda", dtype=torch.half)
    out = torch.empty(m, w.n, device="cuda", dtype=torch.half)
    return lambda i: torch.mm(x, weights[i].t(), out=out), len(weights), x, lambda: out


def int4pack(w, m):
    pairs = (w.codes[:, ::2] << 4 | w.codes[:, 1::2]).to(torch.uint8)
    try:
        packed = torch._convert_weight_to_int4pack(pairs, 8)
    except RuntimeError:  # before PyTorch 2.5 it took one code a word
        packed = torch._convert_weight_to_int4pack(w.codes, 8)
    zeros = torch.zeros_like(w.scale)  # this product's zero point is already the code 8
    scales = torch.stack((w.scale, zeros), 2).transpose(0, 1).contiguous().bfloat16()
    weights = [(packed.clone(), scales.clone()) for _ in range(copies_of(w.n * w.k // 2))]
    x = torch.randn(m, w.k, device="cuda", dtype=torch.bfloat16)
    out = [None]

    def call(i):
        out[0] = torch._weight_int4pack_mm(x, weights[i][0], GROUP, weights[i][1])

    return call, len(weights), x, lambda: out[0]


if triton:

    @triton.jit
    def dequant_gemm(x, w, s, y, M, N, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
        """y[M,N] = x[M,K] w[N,K]^T; byte k of a row of w has codes 2k (low half) and 2k + 1; BK is a group."""
        rows = tl.program_id(0) * BM + tl.arange(0, BM)
        cols = tl.program_id(1) * BN + tl.arange(0, BN)
        depth, half = tl.arange(0, BK), tl.arange(0, BK // 2)
        total = tl.zeros((BM, BN), tl.float32)
        for k in range(0, K // BK):
            a = tl.load(x + rows[:, None] * K + k * BK + depth[None, :], mask=rows[:, None] < M, other=0.0)
            pair = tl.load(w + cols[:, None] * (K // 2) + k * (BK // 2) + half[None, :])
            b = (tl.interleave(pair & 15, pair >> 4).to(tl.float16) - 8.0).to(tl.float16)
            scale = tl.load(s + cols * (K // BK) + k)
            total += tl.dot(a, tl.trans(b)) * scale[None, :].to(tl.float32)
        tl.store(y + rows[:, None] * N + cols[None, :], total.to(tl.float16), mask=rows[:, None] < M)


def triton_tile(w, m, tile):
    bm, bn, warps, stages = tile
    pairs = (w.codes[:, ::2] | w.codes[:, 1::2] << 4).to(torch.uint8)
    weights = [(pairs.clone(), w.scale.half()) for _ in range(copies_of(w.n * w.k // 2))]
    x = torch.randn(m, w.k, device="cuda", dtype=torch.half)
    out = torch.empty(m, w.n, device="cuda", dtype=torch.half)
    grid = (triton.cdiv(m, bm), w.n // bn)

    def call(i):
        dequant_gemm[grid](x, weights[i][0], weights[i][1], out, m, w.n, w.k, bm, bn, GROUP, num_warps=warps,
                           num_stages=stages)

    return call, len(weights), x, lambda: out


def tiles(m):
    """Rows, columns, warps, stages: few, since each is compiled here."""
    rows = max(h for h in (16, 64, 128) if h <= max(16, m))
    return ((rows, 64, 4, 4), (rows, 128, 4, 3), (rows, 128, 8, 3)) if triton else ()


def timed(name, w, m, make, *more):
    """Time of a peer, None if it does not run here or is wrong; the reason is printed."""
    try:
        call, copies, x, result = make(w, m, *more)
        call(0)
        torch.cuda.synchronize()
        check(name, result(), x.float() @ w.dense().t())
        return median_us(call, copies)
    except Exception as error:  # a peer that fails must not end the run
        print("peers: %s, %d x %d, M = %d: %s" % (name, w.n, w.k, m, str(error).splitlines()[0] if str(error) else error))
        return None


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(1)
    print("torch %s, triton %s, %s" % (torch.__version__, triton.__version__ if triton else "missing",
                                       torch.cuda.get_device_name(0)))
    known = open(sys.argv[1]).read().splitlines() if os.path.exists(sys.argv[1]) else []
    with open(sys.argv[1], "a") as out:
        if not known:
            out.write("peer,n,k,m,us\n")
        for size, m in itertools.product(SIZES, TOKENS):
            if any(row.split(",")[1:4] == [str(size), str(size), str(m)] for row in known):
                continue  # an earlier run, cut off, has it
            w = Weight(size, size)
            times = {"torch f16": timed("torch f16", w, m, torch_f16), "int4pack": timed("int4pack", w, m, int4pack)}
            tried = [timed("triton", w, m, triton_tile, tile) for tile in tiles(m)]
            times["triton"] = min((t for t in tried if t), default=None)
            out.writelines("%s,%d,%d,%d,%.3f\n" % (peer, size, size, m, us) for peer, us in times.items() if us)
            out.flush()


if __name__ == "__main__":
    main()
