"""Prints tests/rounding_vectors.h: what compressed-tensors makes of inputs that a checkpoint wants quantized.

    python3 tests/vectors/rounding.py > tests/rounding_vectors.h      with torch and compressed-tensors 0.20.1
"""
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

ACTIVATIONS = {
    "e4m3.row": dict(num_bits=8, type="float", strategy="token", dynamic=True),
    "e4m3.g16": dict(num_bits=8, type="float", strategy="group", group_size=16, dynamic=True),
    "e4m3.tensor": dict(num_bits=8, type="float", strategy="tensor", dynamic=False),
    "i8.tensor": dict(num_bits=8, type="int", strategy="tensor", dynamic=False),
    "i8z.row": dict(num_bits=8, type="int", symmetric=False, strategy="token", dynamic=True, zp_dtype=torch.int8),
    "mxfp8.g32": dict(num_bits=8, type="float", strategy="group", group_size=32, dynamic=True, scale_dtype=torch.uint8),
    "mxfp4.g32": dict(num_bits=4, type="float", strategy="group", group_size=32, dynamic=True, scale_dtype=torch.uint8),
    "nvfp4.g16": dict(num_bits=4, type="float", strategy="tensor_group", group_size=16, dynamic="local",
                      scale_dtype=torch.float8_e4m3fn),
}


def inputs():
    """Two tokens: a large value among small ones; small ones, then next to nothing."""
    torch.manual_seed(7)
    x = (torch.randn(2, 32) * torch.tensor([[1.0], [.02]]) * 1024).round() / 1024
    x[0, 1], x[0, 5], x[1, 16:], x[1, 16] = 0, 9.25, 0, -2.0**-30
    return x


def rounded(name, x):
    args, shared, scale = QuantizationArgs(**ACTIVATIONS[name]), None, 0.0
    if name.startswith("nvfp4"): shared, scale = torch.tensor([306.88]), 1 / 306.88
    if args.dynamic: s, zero = compute_dynamic_scales_and_zp(x, args, None, global_scale=shared)
    else: s, zero, scale = torch.tensor([.013]), None, .013
    return scale, fake_quantize(x, s, zero, args, global_scale=shared)


def numbers(t):
    return ", ".join(f"{float(v):.9g}" for v in t.flatten())


x = inputs()
print("/* rounding_vectors.h - made by tests/vectors/rounding.py. */")
print(f"static const float rounding_input[2 * 32] = {{{numbers(x)}}};\n")
print("static const struct {\n  const char *activation;\n  float scale;\n  float is[2 * 32];\n} rounding_vectors[] = {")
for name in ACTIVATIONS:
    scale, y = rounded(name, x.unsqueeze(0))
    print(f'{{"{name}", {scale:.9g}, {{{numbers(y)}}}}},')
print("};")
