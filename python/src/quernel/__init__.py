"""Quernel from Python: tuned kernels for matrix multiplication with quantized weights.

    import quernel

    context = quernel.open("tiny.qpack")
    checkpoint = quernel.Checkpoint("tests/models/tiny-llama-gptq4")
    gemm = context.bind("int4.g128:768x256")
    weight = gemm.prepack(checkpoint.planes("model.layers.0.mlp.up_proj.weight"))
    y = weight.gemm(x)    # x [..., 256] -> y [..., 768]

`quernel.torch` puts such weights into PyTorch models. The words and the rules are those of quernel.h.
"""

from . import _c
from ._c import Level
from .checkpoint import Checkpoint, Stack, Tensor
from .errors import ArgumentError, CudaError, DeviceError, Error, FileError, FormatError
from .errors import LimitError, NoKernelError, OutOfMemory, ShapeError
from .planes import Planes
from .serving import Context, Gemm, Weight, open

__version__: str = _c.serving.qn_version().decode()

__all__ = [
    "ArgumentError",
    "Checkpoint",
    "Context",
    "CudaError",
    "DeviceError",
    "Error",
    "FileError",
    "FormatError",
    "Gemm",
    "Level",
    "LimitError",
    "NoKernelError",
    "OutOfMemory",
    "Planes",
    "ShapeError",
    "Stack",
    "Tensor",
    "Weight",
    "open",
]
