"""Tuned weights in PyTorch models.

    with quernel.torch.skeleton():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint))
    quernel.torch.load(model, checkpoint, "model.qpack")

For inference: the product has no gradient. On CUDA it runs on the current stream; this has not been run on a GPU yet.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from . import arrays
from ._c import Level, Type
from .checkpoint import Checkpoint, Tensor
from .errors import ArgumentError, NoKernelError, ShapeError
from .gguf import Names
from .planes import Planes
from .serving import Context, Gemm, Weight
from .serving import open as open_pack

# ---- The operator ----------------------------------------------------------------------------------------------------

# A graph holds the number of a weight: numbers are never used twice, and the weight lives as long as its module. A
# number begins with the pack's hash, so that a graph of another process finds no weight of another pack in its place.
_weights: weakref.WeakValueDictionary[int, Weight] = weakref.WeakValueDictionary()
_counts: collections.defaultdict[str, Iterator[int]] = collections.defaultdict(itertools.count)


def _new_number(weight: Weight) -> int:
    pack = weight.context.hash
    number = int(pack[:10], 16) << 22 | next(_counts[pack])
    _weights[number] = weight
    return number


def _weight(number: int) -> Weight:
    weight = _weights.get(number)
    if weight is None:
        raise ArgumentError(
            f"there is no weight {number}: its module is gone, or the graph is of another process, which had loaded"
            " its model from that pack first"
        )
    return weight


def _x_type(gemm: Gemm) -> torch.dtype:
    """What the operator takes: X in 8 bits is made of float32 there."""
    kind = gemm.x_type if gemm.x_type in (Type.F16, Type.BF16, Type.F32) else Type.F32
    return arrays.torch_type(kind)  # type: ignore[no-any-return]


@torch.library.custom_op("quernel::linear", mutates_args=(), schema="(Tensor x, int weight, Tensor? bias) -> Tensor")
def _linear(x: torch.Tensor, weight: int, bias: torch.Tensor | None) -> torch.Tensor:
    w, x = _weight(weight), x.detach().contiguous()
    operands = {} if bias is None else {"bias": bias}
    if w.bound.x_type in (Type.F16, Type.BF16, Type.F32):
        return w.gemm(x, **operands)  # type: ignore[no-any-return]
    if x.is_cuda:
        raise ArgumentError(f"'{w.bound.problem}' wants X in 8 bits: on a GPU tune f32~i8, whose X is rounded there")
    numpy = {name: value.numpy() for name, value in operands.items()}
    return torch.from_numpy(w.gemm(x.numpy(), **numpy)).to(arrays.torch_type(w.bound.y_type))


@_linear.register_fake
def _(x: torch.Tensor, weight: int, bias: torch.Tensor | None) -> torch.Tensor:
    gemm = _weight(weight).bound
    if x.dim() == 0 or x.shape[-1] != gemm.k:
        raise ArgumentError(f"x has the shape {list(x.shape)}: its last dimension must be {gemm.k}")
    return x.new_empty((*x.shape[:-1], gemm.columns), dtype=arrays.torch_type(gemm.y_type))


# ---- Modules ---------------------------------------------------------------------------------------------------------


class _Shared:
    """The weight of one layer, or of several that read the same X: their product is computed once.

    The first of them computes it and the others take their part, each once, if they are called with the same tensor. If
    it was changed in between, it is computed anew; in inference mode and while a graph is traced nothing tells of that.
    """

    def __init__(self, weight: Weight, parts: int) -> None:
        self.weight, self.parts, self.number = weight, parts, _new_number(weight)
        self.x_type = _x_type(weight.bound)
        # X, its version, Y, and the layers that have their part: the first row of each.
        self._last: tuple[torch.Tensor, int | None, torch.Tensor, tuple[int, ...]] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return _Shared(self.weight, self.parts)  # a weight does not change

    def __call__(self, x: torch.Tensor, bias: torch.Tensor | None, first: int) -> torch.Tensor:
        if self.parts == 1:
            return self._product(x, bias)
        version = None if torch.compiler.is_compiling() or x.is_inference() else x._version
        last = self._last
        if last is not None and last[0] is x and last[1] == version and first not in last[3]:
            y, served = last[2], (*last[3], first)
        else:
            y, served = self._product(x, bias), (first,)
        self._last = (x, version, y, served) if len(served) < self.parts else None
        return y

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y: torch.Tensor = torch.ops.quernel.linear(x.to(self.x_type), self.number, bias)
        return y


class QuantLinear(nn.Module):
    """Y = X . W^T + bias with a tuned kernel, where an nn.Linear was.

    weight: prepacked; the module keeps it. Its context closes when nothing uses it any more.
    bias: None or [N] of any float type; kept in float32, and added by the kernel where its problem has +bias.

    forward: X [..., K] of any float type -> Y [..., N] of the type of X. torch.compile keeps the product as one
    operator, quernel::linear. Inference only. Any thread. Raises what `Weight.gemm` raises, and ArgumentError for an X
    that is no float. Copies share the weight; it cannot be pickled.
    """

    bias: torch.Tensor | None

    def __init__(self, weight: Weight, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self._take(_Shared(weight, 1), 0, weight.bound.columns, bias)

    def _take(self, shared: _Shared, first: int, rows: int, bias: torch.Tensor | None) -> None:
        self.shared, self.first, self.out_features = shared, first, rows
        gemm = shared.weight.bound
        self.in_features, self.problem = gemm.k, gemm.problem
        self.inside = "+bias" in gemm.epilogue
        wanted = gemm.n if self.inside else rows
        if bias is None and self.inside:
            raise ArgumentError(f"'{self.problem}' wants bias")
        if bias is not None and bias.shape != (wanted,):
            raise ShapeError(f"bias has the shape {list(bias.shape)}: '{self.problem}' wants {[wanted]}")
        self.register_buffer("bias", None if bias is None else bias.detach().float(), persistent=False)

    @classmethod
    def _part(cls, shared: _Shared, first: int, rows: int, bias: torch.Tensor | None) -> QuantLinear:
        """Rows of a weight that several layers share."""
        out = cls.__new__(cls)
        nn.Module.__init__(out)
        out._take(shared, first, rows, bias)
        return out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            raise ArgumentError(f"x is {x.dtype}: floats are wanted")
        # Of a model that was made half() the bias is, too.
        y = self.shared(x, self.bias.float() if self.inside and self.bias is not None else None, self.first)
        if self.shared.parts > 1:
            y = y[..., self.first : self.first + self.out_features]
        if self.bias is not None and not self.inside:
            y = y + self.bias
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.problem}"


def weights(model: nn.Module) -> list[Weight]:
    """The tuned weights of a model, each once."""
    found = {id(m.shared.weight): m.shared.weight for m in model.modules() if isinstance(m, QuantLinear)}
    return list(found.values())


def memory(model: nn.Module) -> int:
    """Bytes of a model on its devices: tuned weights as they are packed, parameters and buffers."""
    kept = {t.data_ptr(): t.numel() * t.element_size() for t in itertools.chain(model.parameters(), model.buffers())}
    return sum(kept.values()) + sum(w.bytes for w in weights(model))


# ---- Loading ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def skeleton() -> Iterator[None]:
    """Within it modules are made without memory for their parameters, which `load` then fills; buffers are real."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, None if param is None else nn.Parameter(param.to("meta"), param.requires_grad))

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def load(
    model: nn.Module,
    checkpoint: str | os.PathLike[str],
    pack: str | os.PathLike[str] | Context,
    *,
    device: str = "host",
    activations: str | None = None,
) -> nn.Module:
    """Replace the linear layers of a model by tuned ones, and fill its other parameters from the checkpoint.

    model: of Hugging Face, or any whose names are those of the checkpoint. Parameters may be on "meta", see `skeleton`.
    checkpoint: GPTQ, AWQ, compressed-tensors, bitsandbytes or what else libquernel-io reads; of a GGUF only the linear
        layers are taken, and the model must be there in full: from_pretrained(folder, gguf_file=name).
    pack: what `quernel tune` made for it, or an open context, whose device then counts.
    activations: types of X and Y in the pack, "bf16-f32", "f32~i8-f32"; None: its first without 8-bit X.

    A layer that is stored quantized needs a kernel of its format, of its shape or any. A dense one is replaced only if
    the pack was tuned for it. Layers that read the same X (q, k and v; gate and up) become one product where the pack
    has the problem of them together, such as int4.g128:1024x256: `quernel tune MODEL --fused` tunes these.

    Returns the model, which was changed in place. Warns of parameters that are not in the checkpoint and stay as they
    are, and of quantized weights that the model has no layer for. Raises ArgumentError, NoKernelError (the layer and
    what is missing, or no layer at all was replaced), KeyError (a parameter or a buffer without memory that the
    checkpoint does not have), and what `quernel.open` raises.
    """
    context = pack if isinstance(pack, Context) else open_pack(pack, device)
    source = Checkpoint(checkpoint)
    loader = _Loader(model, source, context, activations)
    loader.replace()
    filled = {} if loader.names.gguf else _fill(model, source)
    tie = getattr(model, "tie_weights", None)
    if callable(tie):
        tie()
    for name, left in _tensors(model):
        if left.is_meta:
            raise KeyError(f"{source.path} has no {name}{_advice(model, source, name)}")
    if not loader.names.gguf:
        kept = [name for name, parameter in model.named_parameters() if id(parameter) not in filled]
        _warn(f"{source.path} has not all parameters of the model, which keeps its own", kept)
    _warn(f"the model has no nn.Linear for all quantized weights of {source.path}", loader.left_out())
    return model.eval()


def _warn(what: str, names: list[str]) -> None:
    if names:
        warnings.warn(f"{what}: {len(names)}, the first is {names[0]}", stacklevel=3)


def _advice(model: nn.Module, source: Checkpoint, name: str) -> str:
    """What to do about a parameter or a buffer that stayed without memory."""
    stored, owner = source.find(name), model.get_submodule(name.rpartition(".")[0])
    if source.config is None:
        return " that could be taken: of a GGUF read the rest first, by from_pretrained(folder, gguf_file=name)"
    if stored is not None and stored.quantized:
        return f" but a quantized one, which a {type(owner).__name__} cannot use: nn.Linear alone is replaced"
    if name not in dict(model.named_parameters()):
        return ", a buffer: make the model within quernel.torch.skeleton(), whose buffers have memory"
    return ""


class _Loader:
    def __init__(self, model: nn.Module, source: Checkpoint, context: Context, activations: str | None) -> None:
        self.model, self.source, self.context = model, source, context
        self.names = Names(source, sum(1 for name, _ in model.named_modules() if name.endswith(".mlp")))
        self.types = f":{activations}" if activations else ""
        self.taken: set[str] = set()  # weights of the checkpoint

    def replace(self) -> None:
        layers = {name: m for name, m in self.model.named_modules() if isinstance(m, nn.Linear)}
        tensors = {name: t for name in layers if (t := self._find(name)) is not None}
        for group in _groups(tensors):
            parts = [layers[name] for name in group], [tensors[name] for name in group]
            if len(group) > 1 and self._fuse(group, *parts):
                continue
            for name in group:
                self._one(name, layers[name], tensors[name])
        if not self.taken:
            raise NoKernelError(
                f"no nn.Linear of the model ({next(iter(layers), 'it has none')}…) is a weight of {self.source.path}"
                f" ({next((t.name for t in self.source if t.linear), 'it has none')}…) that the pack has a kernel for"
            )

    def left_out(self) -> list[str]:
        """Quantized weights of the checkpoint that became no layer."""
        wanted = (t for t in self.source if t.quantized and t.linear and t.tied_to is None)
        return [t.name for t in wanted if t.name not in self.taken]

    def _find(self, name: str) -> Tensor | None:
        """The weight of a layer, if it is one to be tuned."""
        tensor = self.source.find(self.names.of(name) + ".weight")
        if tensor is None:
            return None
        if tensor.tied_to is not None:
            return None
        if tensor.refusal is not None and tensor.quantized:
            raise ShapeError(f"{tensor.name}: {tensor.refusal}")
        return tensor if tensor.format is not None else None

    def _bind(self, format: str | None, n: int, k: int, bias: bool) -> Gemm:
        """The problem with its bias or without, whichever the pack has better."""
        found, error = [], NoKernelError()
        for epilogue in ("+bias", "") if bias else ("",):
            try:
                found.append(self.context.bind(f"{format}:{n}x{k}{self.types}{epilogue}"))
            except NoKernelError as e:
                error = e
        if not found:
            raise error
        return min(found, key=lambda gemm: gemm.level)

    def _planes(self, name: str, tensor: Tensor) -> Planes:
        planes = self.source.planes(tensor.name)
        order = self.names.order(name, tensor.n)
        return planes if order is None else planes.rows(order)

    def _one(self, name: str, layer: nn.Linear, tensor: Tensor) -> None:
        self._same_shape(name, layer, tensor)
        try:
            gemm = self._bind(tensor.format, tensor.n, tensor.k, layer.bias is not None)
        except NoKernelError as e:
            if not tensor.quantized:
                return
            raise NoKernelError(f"{name}: {e}") from None
        if tensor.quantized or gemm.level == Level.EXACT:
            weight = gemm.prepack(self._planes(name, tensor))
            self._put(name, tensor, QuantLinear(weight, self._bias(name, layer)))

    def _fuse(self, group: tuple[str, ...], layers: list[nn.Linear], tensors: list[Tensor]) -> bool:
        """Whether the layers of a group became one product."""
        for name, layer, tensor in zip(group, layers, tensors):
            self._same_shape(name, layer, tensor)
        biases = [self._bias(name, layer) for name, layer in zip(group, layers)]
        try:
            gemm = self._bind(tensors[0].format, sum(t.n for t in tensors), tensors[0].k, False)
            if gemm.level != Level.EXACT:
                return False
            planes = Planes.stack([self._planes(name, t) for name, t in zip(group, tensors)])
        except (NoKernelError, ArgumentError, ShapeError):
            return False
        shared, first = _Shared(gemm.prepack(planes), len(group)), 0
        for name, tensor, bias in zip(group, tensors, biases):
            self._put(name, tensor, QuantLinear._part(shared, first, tensor.n, bias))
            first += tensor.n
        return True

    def _same_shape(self, name: str, layer: nn.Linear, tensor: Tensor) -> None:
        if (layer.out_features, layer.in_features) != (tensor.n, tensor.k):
            raise ShapeError(
                f"{name} is {layer.out_features} x {layer.in_features} in the model, and {tensor.n} x {tensor.k} in"
                f" {self.source.path}"
            )

    def _bias(self, name: str, layer: nn.Linear) -> torch.Tensor | None:
        if layer.bias is None or not layer.bias.is_meta:
            return layer.bias
        return _dense(self.source, name + ".bias")

    def _put(self, name: str, tensor: Tensor, module: nn.Module) -> None:
        self.taken.add(tensor.name)
        parent, _, last = name.rpartition(".")
        setattr(self.model.get_submodule(parent), last, module)


def _groups(tensors: dict[str, Tensor]) -> list[tuple[str, ...]]:
    """Names of layers, those together whose weights read the same X and can be one."""
    groups: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(tensor.same_x or tensor.name, []).append(name)
    return [tuple(group) for group in groups.values()]


def _dense(source: Checkpoint, name: str) -> torch.Tensor:
    """A stored tensor, as a copy."""
    array, kind = source.array(name)
    copied = torch.from_numpy(np.array(array))
    return copied.view(arrays.torch_type(Type[kind.upper()])) if kind in ("bf16", "e4m3", "e5m2", "e8m0") else copied


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _fill(model: nn.Module, source: Checkpoint) -> dict[int, torch.Tensor]:
    """Parameters and buffers that the checkpoint has under their own name; those that were made, by their id()."""
    made = {}
    for name, old in _tensors(model):
        parent, _, last = name.rpartition(".")
        try:
            new = _dense(source, name).to(old.dtype)
        except KeyError:
            continue
        if new.shape != old.shape:
            raise ShapeError(f"{name} is {list(old.shape)} in the model, and {list(new.shape)} in {source.path}")
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=False)
        setattr(model.get_submodule(parent), last, new)
        made[id(new)] = new
    return made
