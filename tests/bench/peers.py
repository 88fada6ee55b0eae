"""Contenders of tests/bench/host: each holds copies of one weight and multiplies tokens by one of them.

    quernel     this project: build/runtime/libquernel.so, and packs that the tool tunes when there is none yet
    ggml        Debian and PyPI have no build with AVX-512: pip install libggml-python has AVX2. --ggml takes another
    torch       pip install torch
    onnxruntime pip install onnxruntime onnx
    openblas    apt-get install libopenblas0-pthread

A contender has a name, the bytes of a copy, and the type that its products multiply (for the peak), and

    tokens(x)   take X, f32 [m, K], and make room for Y
    run(i)      Y = X . W_i^T, with whatever it does to X on the way
    result()    Y, f32 [m, N]
    rows(list)  what these rows of the weight stand for, f32
    kernel(m)   what runs there, if it is known
    close()     give back what Python does not know of
"""
import ctypes
import glob
import importlib.util
import os
import struct
import subprocess
import tempfile

import numpy as np


class Missing(Exception):
    """A contender that cannot be had here, and why."""


def cpu_name():
    with open("/proc/cpuinfo") as f:
        names = [line.split(": ")[1].strip() for line in f if line.startswith("model name")]
    return names[0] if names else "a CPU without a name"


def library(*paths, mode=ctypes.DEFAULT_MODE):
    why = ""
    for path in paths:
        try:
            return ctypes.CDLL(path, mode=mode)
        except OSError as missing:
            why = why or str(missing)
    raise Missing(why)


def address(a):
    return a.ctypes.data_as(ctypes.c_void_p)


def aligned(count, dtype):
    """Memory at a multiple of 256 bytes, which the pages are there for."""
    size = max(int(count), 1) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 256, np.uint8)
    at = -raw.ctypes.data % 256
    return raw[at:at + size].view(dtype)


class Contender:
    def __init__(self, nbytes, multiplies, options):
        self.bytes, self.multiplies = nbytes, multiplies
        self.copies = max(3, -(-options.cold * 10 ** 6 // nbytes))

    def kernel(self, m):
        return None

    def close(self):
        pass


# ---- Quernel ---------------------------------------------------------------------------------------------------------

class Plane(ctypes.Structure):  # this and what follows as in quernel.h; test_host.py compares the sizes
    _fields_ = [("name", ctypes.c_char_p), ("type", ctypes.c_int), ("rows", ctypes.c_int64), ("cols", ctypes.c_int64),
                ("data", ctypes.c_void_p)]


class Planes(ctypes.Structure):
    _fields_ = [("format", ctypes.c_char_p), ("n", ctypes.c_int64), ("k", ctypes.c_int64), ("n_planes", ctypes.c_int),
                ("plane", Plane * 8), ("perm", ctypes.c_void_p), ("reserved", ctypes.c_uint64 * 8)]


class Args(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("x", "x_scale", "bias", "y")] + \
        [(name, ctypes.c_int64) for name in ("m", "ldx", "ldy")] + \
        [(name, ctypes.c_void_p) for name in ("workspace", "stream", "counters", "residual", "scale")] + \
        [("ld_residual", ctypes.c_int64), ("reserved", ctypes.c_uint64 * 4)]


class OpenOptions(ctypes.Structure):
    _fields_ = [("device", ctypes.c_char_p), ("threads", ctypes.c_int), ("deterministic", ctypes.c_int),
                ("batch_invariant", ctypes.c_int), ("allocator", ctypes.c_void_p * 2),
                ("reserved", ctypes.c_uint64 * 6)]


def tuned(problem, threads, options):
    """The path of a pack for the problem and these M. It is tuned if there is none, or the tool is newer; what the
    store knows is not measured again."""
    tool, m = os.path.join(options.build, "quernel"), ",".join(map(str, options.m))
    path = os.path.join(options.build, "packs", "bench", "%s-t%d-m%s-%s.qpack" % (
        problem.replace(":", "-"), threads, m.replace(",", "."), options.effort))
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(tool):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        command = [tool, "tune", "--problem", problem, "--device", "host:%d" % threads, "--m", m,
                   "--effort", options.effort, "--no-dense", "--overwrite", "-o", path]
        print("$ " + " ".join(command), flush=True)
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise Missing("the tuner failed")
    return path


class Quernel(Contender):
    """A product of the library with planes that `planes` makes of the weight; `rows` says what they stand for. `act` is
    how a problem spells it: f32~i8 rounds X within the call; for bf16 X is converted here, in the time."""

    def __init__(self, act, weight, threads, options):
        self.n, self.k = weight.shape
        self.act = act
        self.lib = library(os.path.join(options.build, "runtime", "libquernel.so"))
        self.lib.qn_errmsg.restype = self.lib.qn_gemm_kernel.restype = ctypes.c_char_p
        for size in (self.lib.qn_gemm_workspace, self.lib.qn_gemm_counters, self.lib.qn_weight_bytes):
            size.restype = ctypes.c_size_t
        planes = self.planes(weight, options)
        problem = "%s:%dx%d:%s-f32" % (planes.format.decode(), self.n, self.k, act)
        self.ctx, self.gemm = ctypes.c_void_p(), ctypes.c_void_p()
        opened = OpenOptions(device=b"host", threads=threads)
        self.check(self.lib.qn_open(tuned(problem, threads, options).encode(), ctypes.byref(opened),
                                    ctypes.byref(self.ctx), None, 0))
        self.check(self.lib.qn_bind(self.ctx, problem.encode(), ctypes.byref(self.gemm)))
        nbytes, multiplies = self.lib.qn_weight_bytes(self.gemm), act.split("~")[-1]
        super().__init__(nbytes, multiplies, options)
        self.weight = [ctypes.c_void_p() for _ in range(self.copies)]
        for w in self.weight:
            self.check(self.lib.qn_prepack(self.gemm, ctypes.byref(planes), ctypes.byref(w)))
        self.planes_done()

    def planes_done(self):
        """The weight is packed: its planes may go."""

    def type(self, name):
        return self.lib.qn_type_from_name(name.encode())

    def check(self, status):
        if status:
            raise Missing(self.lib.qn_errmsg().decode())

    def tokens(self, x):
        self.x, self.m = x, x.shape[0]
        self.y = aligned(self.m * self.n, np.float32).reshape(self.m, self.n)
        self.cast = x if "f32" in self.act else aligned(x.size, np.uint16)
        self.workspace = aligned(self.lib.qn_gemm_workspace(self.gemm, ctypes.c_int64(self.m)), np.uint8)
        self.counters = aligned(self.lib.qn_gemm_counters(self.gemm, ctypes.c_int64(self.m)), np.uint8)
        self.args = Args(x=self.cast.ctypes.data, y=self.y.ctypes.data, m=self.m,
                         workspace=self.workspace.ctypes.data, counters=self.counters.ctypes.data)

    def run(self, i):
        x = address(self.x)
        if self.cast is not self.x:
            self.check(self.lib.qn_convert(x, self.type("f32"), address(self.cast), self.type(self.act),
                                           ctypes.c_size_t(self.x.size)))
        self.check(self.lib.qn_run(self.gemm, self.weight[i], ctypes.byref(self.args)))

    def result(self):
        return self.y

    def kernel(self, m):
        return self.lib.qn_gemm_kernel(self.gemm, ctypes.c_int64(m)).decode()

    def close(self):
        for w in self.weight:
            self.lib.qn_weight_free(w)
        self.lib.qn_gemm_free(self.gemm)
        self.lib.qn_close(self.ctx)


class QuernelInt(Quernel):
    """Integers of `bits` bits, symmetric, with an f16 scale for each group; 0: for each row."""

    def __init__(self, bits, group, act, weight, threads, options):
        self.bits, self.group = bits, group or weight.shape[1]
        self.format = "int%d.%s" % (bits, "g%d" % group if group else "row")
        super().__init__(act, weight, threads, options)

    def planes(self, weight, options):
        n, k = weight.shape
        self.half = 1 << (self.bits - 1)
        groups = weight.reshape(n, -1, self.group)
        self.scale = (np.abs(groups).max(2) / (self.half - 1)).astype(np.float16)
        codes = np.rint(groups / self.scale[:, :, None].astype(np.float32))
        self.codes = (np.clip(codes, -self.half, self.half - 1) + self.half).astype(np.uint8).reshape(n, k)
        planes = Planes(format=self.format.encode(), n=n, k=k, n_planes=2)
        planes.plane[0] = Plane(b"codes", self.type("u8"), n, k, self.codes.ctypes.data)
        planes.plane[1] = Plane(b"scale", self.type("f16"), n, k // self.group, self.scale.ctypes.data)
        return planes

    def rows(self, rows):
        scale = np.repeat(self.scale[rows].astype(np.float32), self.group, 1)
        return (self.codes[rows].astype(np.float32) - self.half) * scale


class QuernelGguf(Quernel):
    """The bytes that ggml makes of the weight, read from a GGUF of one tensor."""

    def __init__(self, kind, act, weight, threads, options):
        self.kind = kind
        super().__init__(act, weight, threads, options)

    def planes(self, weight, options):
        self.bytes_of_ggml = GgmlBytes(self.kind, weight, options)
        self.io = io = library(os.path.join(options.build, "runtime", "io", "libquernel-io.so"))
        io.qn_io_errmsg.restype = ctypes.c_char_p
        io.qn_model_tensor.restype = ctypes.c_void_p
        model, planes = ctypes.c_void_p(), ctypes.POINTER(Planes)()
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            f.write(self.bytes_of_ggml.gguf())
            f.flush()
            if io.qn_model_open(f.name.encode(), ctypes.byref(model)) or io.qn_model_planes(
                    model, ctypes.c_void_p(io.qn_model_tensor(model, ctypes.c_size_t(0))), ctypes.c_int64(0),
                    ctypes.byref(planes)):
                raise Missing(io.qn_io_errmsg().decode())
        self.read = model, planes
        return planes.contents

    def planes_done(self):
        self.io.qn_planes_free(self.read[1])
        self.io.qn_model_close(self.read[0])

    def rows(self, rows):
        return self.bytes_of_ggml.rows(rows)


# ---- ggml ------------------------------------------------------------------------------------------------------------

GGML = {"F32": 0, "Q4_0": 2, "Q8_0": 8, "Q2_K": 10, "Q4_K": 12, "Q6_K": 14, "IQ4_XS": 23, "MXFP4": 39}


class InitParams(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("memory", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class PoolParams(ctypes.Structure):
    _fields_ = [("cpus", ctypes.c_bool * 512), ("threads", ctypes.c_int), ("priority", ctypes.c_int),
                ("poll", ctypes.c_uint32), ("strict", ctypes.c_bool), ("paused", ctypes.c_bool)]


class Traits(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("block", ctypes.c_int64), ("interleave", ctypes.c_int64),
                ("size", ctypes.c_size_t), ("quantized", ctypes.c_bool),
                ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64))]


class Functions:
    """A library's functions, all of whose arguments and results are pointers or of 64 bits; those that return nothing
    return it here, too."""

    def __init__(self, *libraries):
        self.libraries = libraries

    def __getattr__(self, name):
        lib = next((lib for lib in self.libraries if hasattr(lib, name)), None)
        if lib is None:
            raise Missing("the library has no function %s" % name)
        function = getattr(lib, name)
        function.restype = ctypes.c_void_p

        def call(*args):
            return function(*[ctypes.c_int64(a) if isinstance(a, int) else a for a in args])
        setattr(self, name, call)
        return call


def pointer(p):
    return ctypes.c_void_p(p)


def ggml_library(folder):
    if not folder:
        spec = importlib.util.find_spec("libggml")
        if not spec:
            raise Missing("pip install libggml-python, or --ggml FOLDER")
        folder = next((os.path.dirname(f) for root in spec.submodule_search_locations
                       for f in glob.glob(root + "/**/libggml-cpu.so", recursive=True)), "")
    return Functions(library(os.path.join(folder, "libggml-base.so"), mode=ctypes.RTLD_GLOBAL),
                     library(os.path.join(folder, "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL))


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def quiet(level, text, ud):
    pass


class GgmlBytes:
    """A weight as ggml rounds it to a type."""

    def __init__(self, kind, weight, options):
        self.g = ggml_library(options.ggml)
        self.g.ggml_log_set(quiet, None)
        self.type, (self.n, self.k) = GGML[kind], weight.shape
        self.data = np.zeros((self.n, self.g.ggml_row_size(self.type, self.k)), np.uint8)
        self.g.ggml_quantize_chunk(self.type, address(weight), address(self.data), 0, self.n, self.k, None)

    def rows(self, rows):
        traits = Traits.from_address(self.g.ggml_get_type_traits(self.type))
        out = np.zeros((len(rows), self.k), np.float32)
        for to, r in zip(out, rows):
            traits.to_float(address(self.data[r]), address(to), self.k)
        return out

    def gguf(self):
        name = b"w.weight"
        head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + struct.pack("<Q", len(name)) + name + struct.pack(
            "<IQQIQ", 2, self.k, self.n, self.type, 0)
        return head + bytes(-len(head) % 32) + self.data.tobytes()


class Ggml(Contender):
    """mul_mat of a type, with weights in the plain buffer of the CPU or in the one that rearranges them."""

    def __init__(self, kind, repacked, weight, threads, options):
        self.source = GgmlBytes(kind, weight, options)
        self.g = g = self.source.g
        self.n, self.k = weight.shape
        self.type, data = self.source.type, self.source.data
        super().__init__(data.nbytes, "i8", options)
        self.calls = self.weights = None
        self.backend = pointer(g.ggml_backend_cpu_init())
        g.ggml_backend_cpu_set_n_threads(self.backend, threads)
        params = PoolParams()
        g.ggml_threadpool_params_init(ctypes.byref(params), threads)
        self.pool = pointer(g.ggml_threadpool_new(ctypes.byref(params)))
        g.ggml_backend_cpu_set_threadpool(self.backend, self.pool)
        ctx = self.context()
        self.weight = [pointer(g.ggml_new_tensor_2d(ctx, self.type, self.k, self.n)) for _ in range(self.copies)]
        kind_of_buffer = self.repacking() if repacked else pointer(g.ggml_backend_cpu_buffer_type())
        self.weights = ctx, self.allocate(ctx, kind_of_buffer)
        if repacked and not self.supported():
            self.close()
            raise Missing("not rearranged for this CPU")
        for w in self.weight:
            g.ggml_backend_tensor_set(w, address(data), 0, data.nbytes)

    def context(self):
        return pointer(self.g.ggml_init(InitParams(64 << 20, None, True)))

    def allocate(self, ctx, kind):
        buffer = pointer(self.g.ggml_backend_alloc_ctx_tensors_from_buft(ctx, kind))
        if not buffer:
            raise Missing("no memory")
        return buffer

    def free(self, tensors):
        if tensors:
            self.g.ggml_backend_buffer_free(tensors[1])
            self.g.ggml_free(tensors[0])

    def close(self):
        self.free(self.calls)
        self.free(self.weights)
        self.g.ggml_backend_free(self.backend)
        self.g.ggml_threadpool_free(self.pool)

    def device(self):
        return pointer(self.g.ggml_backend_reg_dev_get(pointer(self.g.ggml_backend_cpu_reg()), 0))

    def repacking(self):
        get = self.g.ggml_backend_reg_get_proc_address(pointer(self.g.ggml_backend_cpu_reg()),
                                                       b"ggml_backend_dev_get_extra_bufts")
        if not get:
            raise Missing("this ggml has no further buffers")
        kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(get)(self.device())
        for kind in iter(kinds):
            if not kind:
                break
            name = ctypes.string_at(self.g.ggml_backend_buft_name(pointer(kind)))
            if name == b"CPU_REPACK":
                return pointer(kind)
        raise Missing("this ggml has no buffer CPU_REPACK")

    def supported(self):
        ctx = self.context()
        x = pointer(self.g.ggml_new_tensor_2d(ctx, GGML["F32"], self.k, 1))
        y = pointer(self.g.ggml_mul_mat(ctx, self.weight[0], x))
        yes = (self.g.ggml_backend_dev_supports_op(self.device(), y) or 0) & 1 == 1
        self.g.ggml_free(ctx)
        return yes

    def rows(self, rows):
        return self.source.rows(rows)

    def tokens(self, x):
        g, m = self.g, x.shape[0]
        self.free(self.calls)
        ctx, self.m = self.context(), m
        tensor = pointer(g.ggml_new_tensor_2d(ctx, GGML["F32"], self.k, m))
        self.y = [pointer(g.ggml_mul_mat(ctx, w, tensor)) for w in self.weight]
        self.graph = []
        for y in self.y:
            self.graph.append(pointer(g.ggml_new_graph_custom(ctx, 8, 0)))
            g.ggml_build_forward_expand(self.graph[-1], y)
        self.calls = ctx, self.allocate(ctx, pointer(g.ggml_backend_cpu_buffer_type()))
        g.ggml_backend_tensor_set(tensor, address(x), 0, x.nbytes)

    def run(self, i):
        self.last = i
        self.g.ggml_backend_graph_compute(self.backend, self.graph[i])

    def result(self):
        y = np.zeros((self.m, self.n), np.float32)
        self.g.ggml_backend_tensor_get(self.y[self.last], address(y), 0, y.nbytes)
        return y


# ---- OpenBLAS --------------------------------------------------------------------------------------------------------

class OpenBlas(Contender):
    """The dense product in f32."""

    def __init__(self, weight, threads, options):
        self.lib = library("libopenblas.so.0", "libopenblas.so")
        self.lib.openblas_set_num_threads(threads)
        self.n, self.k = weight.shape
        super().__init__(weight.nbytes, "f32", options)
        self.weight = [weight.copy() for _ in range(self.copies)]

    def rows(self, rows):
        return self.weight[0][rows]

    def tokens(self, x):
        self.x, self.y = x, np.zeros((x.shape[0], self.n), np.float32)

    def run(self, i):
        m, one, w = self.x.shape[0], ctypes.c_float(1), address(self.weight[i])
        if m == 1:
            self.lib.cblas_sgemv(101, 111, self.n, self.k, one, w, self.k, address(self.x), 1, ctypes.c_float(0),
                                 address(self.y), 1)
        else:
            self.lib.cblas_sgemm(101, 111, 112, m, self.n, self.k, one, address(self.x), self.k, w, self.k,
                                 ctypes.c_float(0), address(self.y), self.n)

    def result(self):
        return self.y


# ---- PyTorch ---------------------------------------------------------------------------------------------------------

def torch_library(threads):
    if not importlib.util.find_spec("torch"):
        raise Missing("pip install torch")
    import torch
    torch.set_num_threads(threads)
    return torch


class Torch(Contender):
    """A product of PyTorch, X in bf16 or f32; `form` makes a copy of the weight and says what it stands for."""

    def __init__(self, multiplies, dtype, weight, threads, options):
        self.torch = torch_library(threads)
        self.dtype, self.n = getattr(self.torch, dtype), weight.shape[0]
        self.stands_for, first = self.form(self.torch.from_numpy(weight))
        super().__init__(sum(t.numel() * t.element_size() for t in first), multiplies, options)
        self.weight = [self.copy(first) for _ in range(self.copies)]

    def copy(self, parts):
        return tuple(t.clone() for t in parts)

    def rows(self, rows):
        return self.stands_for[rows].float().numpy()

    def tokens(self, x):
        self.x = self.torch.from_numpy(x)

    def run(self, i):
        with self.torch.inference_mode():
            self.y = self.product(self.x.to(self.dtype), *self.weight[i])

    def result(self):
        return self.y.float().numpy()


class TorchDense(Torch):
    """oneDNN in bf16, or MKL or oneDNN in f32."""

    def form(self, weight):
        dense = weight.to(self.dtype)
        return dense, (dense,)

    def product(self, x, w):
        return self.torch.nn.functional.linear(x, w)


class TorchInt8(Torch):
    """_weight_int8pack_mm: codes with a scale for each row."""

    def form(self, weight):
        scale = (weight.abs().amax(1) / 127).to(self.dtype)
        codes = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(self.torch.int8)
        return codes.float() * scale.float()[:, None], (codes, scale)

    def product(self, x, codes, scale):
        return self.torch._weight_int8pack_mm(x, codes, scale)


class TorchDynamic(Torch):
    """oneDNN's product of 8-bit weights and 8-bit X: a scale for each row of W, one for the whole of X, inside the call."""

    def form(self, weight):
        self.torch.backends.quantized.engine = "onednn"
        scale = weight.abs().amax(1).double() / 127
        zero = self.torch.zeros(self.n, dtype=self.torch.int64)
        codes = self.torch.quantize_per_channel(weight, scale, zero, 0, self.torch.qint8)
        return codes.dequantize(), (codes,)

    def copy(self, parts):
        return (self.torch.ops.quantized.linear_prepack(parts[0], None),)

    def product(self, x, packed):
        return self.torch.ops.quantized.linear_dynamic(x, packed)


class TorchInt4(Torch):
    """_weight_int4pack_mm_for_cpu: groups of 128, scales and zeros in bf16."""

    GROUP = 128

    def form(self, weight):
        n, k = weight.shape
        groups = weight.reshape(n, -1, self.GROUP)
        scale = (groups.abs().amax(2) / 7).to(self.dtype).float()
        codes = (groups / scale[:, :, None]).round().clamp(-8, 7) + 8
        packed = self.torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.reshape(n, k).to(self.torch.int32), 1)
        both = self.torch.stack([scale, self.torch.zeros_like(scale)], 2).transpose(0, 1).contiguous().to(self.dtype)
        return ((codes - 8) * scale[:, :, None]).reshape(n, k), (packed, both)

    def product(self, x, packed, both):
        return self.torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, self.GROUP, both)


# ---- onnxruntime -----------------------------------------------------------------------------------------------------

class Onnx(Contender):
    """MatMulNBits: 4 bits, X rounded to 8 bits inside (accuracy level 4) or in f32 (level 0). Equal weights would share
    memory inside the library, so the last row of each copy differs."""

    def __init__(self, group, level, weight, threads, options):
        if not importlib.util.find_spec("onnxruntime") or not importlib.util.find_spec("onnx"):
            raise Missing("pip install onnxruntime onnx")
        n, k = weight.shape
        self.n, self.k = n, k
        groups = weight.reshape(n, -1, group)
        scale = np.abs(groups).max(2) / 7
        codes = (np.clip(np.rint(groups / scale[:, :, None]), -8, 7) + 8).astype(np.uint8)
        self.stands_for = ((codes.astype(np.float32) - 8) * scale[:, :, None]).reshape(n, k)
        packed = codes[:, :, 0::2] | codes[:, :, 1::2] << 4
        super().__init__(packed.nbytes + scale.nbytes, "i8" if level == 4 else "f32", options)
        self.session = [self.model(packed, scale, group, level, threads, copy) for copy in range(self.copies)]

    def model(self, packed, scale, group, level, threads, copy):
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
        packed = packed.copy()
        packed[-1].reshape(-1)[:4] = np.frombuffer(struct.pack("<I", copy), np.uint8)
        node = helper.make_node("MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", K=self.k, N=self.n,
                                bits=4, block_size=group, accuracy_level=level)
        graph = helper.make_graph(
            [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", self.k])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", self.n])],
            [numpy_helper.from_array(packed, "b"), numpy_helper.from_array(scale.reshape(-1), "s")])
        sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=sets)
        model.ir_version = min(onnx.IR_VERSION, 10)
        how = onnxruntime.SessionOptions()
        how.intra_op_num_threads, how.log_severity_level = threads, 3
        return onnxruntime.InferenceSession(model.SerializeToString(), how, providers=["CPUExecutionProvider"])

    def rows(self, rows):
        return self.stands_for[rows]

    def tokens(self, x):
        self.x = x

    def run(self, i):
        self.y = self.session[i].run(None, {"x": self.x})[0]

    def result(self):
        return self.y


# ---- All -------------------------------------------------------------------------------------------------------------

def maker(name, kind, *how):
    def make(weight, threads, options):
        contender = kind(*how, weight, threads, options)
        contender.name = name
        return contender
    return name, make


MAKERS = [
    *(maker("quernel int%d.%s %s" % (bits, "g%d" % group if group else "row", act), QuernelInt, bits, group, act)
      for bits, group, act in ((4, 32, "f32~i8"), (4, 128, "f32~i8"), (4, 128, "bf16"), (3, 64, "f32~i8"),
                               (8, 0, "f32~i8"))),
    *(maker("quernel %s f32~i8" % kind, QuernelGguf, kind, "f32~i8")
      for kind in ("Q4_0", "Q4_K", "Q6_K", "Q2_K", "IQ4_XS", "MXFP4")),
    *(maker("ggml %s%s" % (kind, " repacked" * repacked), Ggml, kind, repacked)
      for kind in ("Q4_0", "Q4_K", "Q6_K", "Q2_K", "IQ4_XS", "MXFP4", "Q8_0") for repacked in (False, True)),
    maker("onnxruntime int4.g32 f32~i8", Onnx, 32, 4), maker("onnxruntime int4.g128 f32~i8", Onnx, 128, 4),
    maker("onnxruntime int4.g32 f32", Onnx, 32, 0),
    maker("torch int4.g128 bf16", TorchInt4, "bf16", "bfloat16"),
    maker("torch int8.row bf16", TorchInt8, "bf16", "bfloat16"),
    maker("torch int8.row f32~i8", TorchDynamic, "i8", "float32"),
    maker("torch dense bf16", TorchDense, "bf16", "bfloat16"),
    maker("torch dense f32", TorchDense, "f32", "float32"),
    maker("OpenBLAS dense f32", OpenBlas),
]
