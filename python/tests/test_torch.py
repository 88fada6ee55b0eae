"""quernel.torch on the checkpoints of the source tree: logits, memory, torch.compile. Needs PyTorch, transformers."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WHERE = "python -m pip install torch transformers gguf --extra-index-url https://download.pytorch.org/whl/cpu"
torch = pytest.importorskip("torch", reason=f"no torch: {WHERE}")
transformers = pytest.importorskip("transformers", reason=f"no transformers: {WHERE}")

import safetensors.torch  # noqa: E402

import quernel  # noqa: E402
import quernel.torch  # noqa: E402

LAYERS = 4
FUSED = ["int4.g128:512x256", "int4.g128:1536x256", "int4.g128:256x256", "int4.g128:256x768"]  # of a layer
HEAD = "bf16:256x256"


def empty(folder: Path) -> Any:
    config = transformers.AutoConfig.from_pretrained(folder)
    with quernel.torch.skeleton():
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def made(path: Path, pack: Any, **options: Any) -> Any:
    """A model with tuned layers."""
    if path.suffix != ".gguf":
        return quernel.torch.load(empty(path), path, pack, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return quernel.torch.load(model, path, pack, **options)


@pytest.fixture(scope="module")
def dense(models: Path, tool: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The model of a checkpoint in float64: what is quantized as the tool dequantizes it, the rest as it is stored."""
    folder = tmp_path_factory.mktemp("dense")

    def make(name: str) -> Any:
        path = models / name
        if path.suffix == ".gguf":  # transformers has a reader of its own
            return transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=name, dtype=torch.float32
            ).double()
        model = transformers.AutoModelForCausalLM.from_pretrained(models / "tiny-llama", dtype=torch.float32)
        stored = safetensors.torch.load_file(path / "model.safetensors")
        quantized = {tensor.name for tensor in quernel.Checkpoint(path) if tensor.quantized}
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                weight = stored.get(parameter_name)
                if parameter_name in quantized:
                    tool("dequantize", path, parameter_name, "-o", folder / "w.npy")
                    weight = torch.from_numpy(np.load(folder / "w.npy"))
                parameter.copy_(weight)
        return model.double()

    return make


def tokens(models: Path, n: int = 24) -> Any:
    return torch.tensor([list((models / "text" / "valid.txt").read_bytes()[:n])])


def logits(model: Any, ids: Any) -> Any:
    with torch.no_grad():
        return model(ids).logits.double()


@pytest.fixture(scope="module")
def gptq(models: Path, tune: Callable[..., Path]) -> Path:
    return tune("gptq4", models / "tiny-llama-gptq4", "--act", "f32")


# ---- Whole models ----------------------------------------------------------------------------------------------------

CHECKPOINTS = [
    "tiny-llama-gptq4",
    "tiny-llama-gptq4-act",
    "tiny-llama-awq4",
    "tiny-llama-ct-w4a16",
    "tiny-llama-bnb-nf4",
    "tiny-llama-q4_0.gguf",
    "tiny-llama-q4_k_m.gguf",
]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_are_those_of_the_dequantized_model(
    models: Path, tune: Callable[..., Path], dense: Callable[[str], Any], name: str
) -> None:
    """As near to float64 as PyTorch's own float32 is, within a factor for another order of sums."""
    if name.endswith(".gguf"):
        pytest.importorskip("gguf", reason=f"no gguf: {WHERE}")
    path, ids, exact = models / name, tokens(models), dense(name)
    model = made(path, tune(name, path, "--act", "f32"))
    truth = logits(exact, ids)
    own = logits(torch.nn.Module.float(copy.deepcopy(exact)), ids)  # transformers has no float() for a GGUF
    bound = 8 * float((own - truth).abs().max())
    assert float((logits(model, ids) - truth).abs().max()) <= bound
    # Memory as quantized: nothing of the layers is left in the model, and packed weights are as large as in the file.
    checkpoint = quernel.Checkpoint(path)
    stored = {t.name: t.bytes for t in checkpoint if t.quantized and t.linear}
    dense_formats = ("f32", "f16", "bf16")
    quantized = [w for w in quernel.torch.weights(model) if w.bound.problem.split(":")[0] not in dense_formats]
    assert len(quantized) == len(stored) >= 7 * LAYERS
    assert sum(w.bytes for w in quantized) <= 1.15 * sum(stored.values())
    assert not [p for p, _ in model.named_parameters() if "_proj" in p]


def test_bf16_activations(models: Path, tune: Callable[..., Path], dense: Callable[[str], Any]) -> None:
    """X rounded to bf16 costs what it costs a dense model whose layers round theirs."""
    path, ids, exact = models / "tiny-llama-gptq4", tokens(models), dense("tiny-llama-gptq4")
    truth = logits(exact, ids)
    model = made(path, tune("bf16", path))
    for layer in exact.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].bfloat16().double(),))
    cost = float((logits(exact, ids) - truth).abs().max())
    assert 0 < float((logits(model, ids) - truth).abs().max()) <= 2 * cost


def test_text_is_made_with_a_cache(models: Path, gptq: Path, dense: Callable[[str], Any]) -> None:
    model, ids = made(models / "tiny-llama-gptq4", gptq), tokens(models)
    made_text = model.generate(ids, max_new_tokens=12, do_sample=False)
    expected = dense("tiny-llama-gptq4").generate(ids, max_new_tokens=12, do_sample=False)
    assert torch.equal(made_text, expected)


# ---- Fused layers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fused(models: Path, tune: Callable[..., Path]) -> Path:
    return tune("fused", models / "tiny-llama-gptq4", "--act", "f32", "--fused")


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The problems of the products that are computed, as they are."""
    seen: list[str] = []
    run = quernel.Gemm.run

    def counted(self: quernel.Gemm, *arguments: Any, **more: Any) -> Any:
        seen.append(self.problem)
        return run(self, *arguments, **more)

    monkeypatch.setattr(quernel.Gemm, "run", counted)
    return seen


def test_layers_of_the_same_x_are_one_product(models: Path, gptq: Path, fused: Path, products: list[str]) -> None:
    path, ids = models / "tiny-llama-gptq4", tokens(models)
    one, each = made(path, fused), made(path, gptq)
    assert len(quernel.torch.weights(one)) == 4 * LAYERS + 1
    together = logits(one, ids)
    assert sorted(products) == sorted(f"{problem}:f32-f32" for problem in [*FUSED * LAYERS, HEAD])
    assert float((together - logits(each, ids)).abs().max()) < 1e-3
    # Another X, of the same memory: nothing of the last product is used again.
    x = torch.randn(3, 256)
    layer = one.model.layers[0].self_attn
    first = layer.q_proj(x)
    x.mul_(2)
    torch.testing.assert_close(layer.q_proj(x), 2 * first)
    with torch.inference_mode():  # where nothing tells that memory was changed
        layer.q_proj(x)
        x.mul_(2)
        torch.testing.assert_close(layer.q_proj(x), 4 * first)


def test_copies_share_their_weights(models: Path, fused: Path) -> None:
    model, ids = made(models / "tiny-llama-gptq4", fused), tokens(models)
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied, ids), logits(model, ids))
    assert {id(w) for w in quernel.torch.weights(copied)} == {id(w) for w in quernel.torch.weights(model)}
    assert quernel.torch.memory(torch.nn.ModuleList([model, copied])) < 2 * quernel.torch.memory(model)
    for save in (pickle.dumps, lambda m: torch.save(m, io.BytesIO())):
        with pytest.raises(TypeError, match="a Weight belongs to its process: save .* the checkpoint and the pack"):
            save(model)


# ---- torch.compile ---------------------------------------------------------------------------------------------------


def test_operator(models: Path, gptq: Path) -> None:
    """PyTorch's own checks of an operator: its schema, its fake, what it does to its arguments."""
    weight = quernel.open(gptq).bind("int4.g128:768x256:f32-f32")
    planes = quernel.Checkpoint(models / "tiny-llama-gptq4").planes("model.layers.0.mlp.up_proj.weight")
    layer = quernel.torch.QuantLinear(weight.prepack(planes))
    for shape in ((256,), (3, 256), (2, 3, 256)):
        torch.library.opcheck(torch.ops.quernel.linear, (torch.randn(*shape), layer.shared.number, None))
    for device in ("cpu", "meta"):
        with pytest.raises(quernel.ArgumentError, match="last dimension must be 256"):
            torch.ops.quernel.linear(torch.randn(3, 255, device=device), layer.shared.number, None)
        with pytest.raises(quernel.ArgumentError, match="no weight 1: its module is gone, or the graph is of another"):
            torch.ops.quernel.linear(torch.randn(3, 256, device=device), 1, None)


def test_export(models: Path, gptq: Path) -> None:
    """With as many rows as one likes, and the same number in every process that loads as much from the pack."""
    planes = quernel.Checkpoint(models / "tiny-llama-gptq4").planes("model.layers.0.mlp.up_proj.weight")
    layer = quernel.torch.QuantLinear(quernel.open(gptq).bind("int4.g128:768x256:f32-f32").prepack(planes))
    rows = torch.export.Dim("rows")
    program = torch.export.export(layer, (torch.randn(4, 256),), dynamic_shapes=({0: rows},))
    x = torch.randn(9, 256)
    assert torch.equal(program.module()(x), layer(x))
    assert layer.shared.number >> 22 == int(quernel.open(gptq).hash[:10], 16)


@pytest.mark.parametrize("pack, calls", [("gptq", 7 * LAYERS + 1), ("fused", 4 * LAYERS + 1)])  # 1: the head, in bf16
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_keeps_the_operator(
    models: Path, backend: str, pack: str, calls: int, products: list[str], request: pytest.FixtureRequest
) -> None:
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor compiles with g++: apt-get install g++")
    model, ids = made(models / "tiny-llama-gptq4", request.getfixturevalue(pack)), tokens(models)
    eager = logits(model, ids)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    logits(compiled, ids)
    products.clear()
    again = logits(compiled, ids)
    if backend == "inductor":  # what is around the products is code of its own, which sums in another order
        torch.testing.assert_close(again, eager, atol=1e-3, rtol=1e-3)
    else:
        assert torch.equal(again, eager)
    assert len(products) == calls


# ---- Modules, and what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("epilogue", ["", "+bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bias(models: Path, tune: Callable[..., Path], epilogue: str, dtype: Any) -> None:
    pack = tune("bias", "--problem", f"int4.g128:768x256:bf16-bf16{epilogue}")
    planes = quernel.Checkpoint(models / "tiny-llama-gptq4").planes("model.layers.0.mlp.up_proj.weight")
    weight = quernel.open(pack).bind(f"int4.g128:768x256:bf16-bf16{epilogue}").prepack(planes)
    w = (planes["codes"].astype(float) - 8) * np.repeat(planes["scale"].astype(float), 128, axis=1)
    bias, x = torch.randn(768), torch.randn(2, 5, 256, dtype=dtype)
    layer = quernel.torch.QuantLinear(weight, bias)
    for other in (torch.float32, torch.bfloat16, torch.float64):  # whatever is made of the model
        y = layer.to(other)(x)
        assert (y.dtype, y.shape) == (dtype, (2, 5, 768))
        torch.testing.assert_close(y.double(), x.double() @ torch.tensor(w).T + bias.double(), atol=0.05, rtol=0.02)
    with pytest.raises(quernel.ArgumentError, match="x is torch.int8: floats are wanted"):
        layer(x.to(torch.int8))
    with pytest.raises(quernel.ShapeError, match=r"bias has the shape \[1, 768\].* wants \[768\]"):
        quernel.torch.QuantLinear(weight, bias[None])
    if epilogue:
        with pytest.raises(quernel.ArgumentError, match="wants bias"):
            quernel.torch.QuantLinear(weight)


def test_what_does_not_fit(models: Path, gptq: Path, tune: Callable[..., Path]) -> None:
    path = models / "tiny-llama-gptq4"
    other = tune("other", "--problem", "int3.g128:256x256")
    with pytest.raises(quernel.NoKernelError, match="layers.0.self_attn.*int4.g128"):
        made(path, other)
    config = transformers.AutoConfig.from_pretrained(path)
    config.intermediate_size = 512
    with quernel.torch.skeleton():
        model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(quernel.ShapeError, match=r"gate_proj is 512 x 256 in the model, and 768 x 256"):
        quernel.torch.load(model, path, gptq)
    model = empty(path)
    model.extra = torch.nn.Parameter(torch.empty(3, device="meta"))
    with pytest.raises(KeyError, match="extra"):
        quernel.torch.load(model, path, gptq)


def test_another_checkpoint(models: Path, gptq: Path) -> None:
    """What a model and a checkpoint do not have of each other is told, and is nothing to go on with where it is all."""
    path = models / "tiny-llama-gptq4"
    config = transformers.AutoConfig.from_pretrained(models / "tiny-llama")
    with pytest.raises(quernel.NoKernelError, match=r"no nn.Linear of the model \(layers.0.*lm_head.weight"):
        quernel.torch.load(transformers.LlamaModel(config), path, gptq)
    whys = {LAYERS + 1: "has not all parameters.*: 9, .* model.layers.4", 2: "no nn.Linear.*: 14, .*layers.2"}
    for layers, why in whys.items():
        config.num_hidden_layers = layers
        with pytest.warns(UserWarning, match=why):
            quernel.torch.load(transformers.AutoModelForCausalLM.from_config(config), path, gptq)
    config.num_hidden_layers = LAYERS
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(KeyError, match="inv_freq, a buffer: make the model within quernel.torch.skeleton"):
        quernel.torch.load(model, path, gptq)


NUMBERS = {
    "seen": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "ids": torch.tensor([-1, 5], dtype=torch.int16),
    "wide": torch.tensor([1 / 3], dtype=torch.float64),
    "bytes": torch.tensor([255], dtype=torch.uint8),
}


def test_buffers_of_any_type(tmp_path: Path, tool: Callable[..., str], tune: Callable[..., Path]) -> None:
    dense = tmp_path / "dense.safetensors"
    safetensors.torch.save_file({"up.weight": torch.randn(768, 256).bfloat16(), **NUMBERS}, dense)
    model = torch.nn.Module()
    model.up = torch.nn.Linear(256, 768, bias=False)
    for name, value in NUMBERS.items():
        model.register_buffer(name, torch.zeros_like(value))
    quernel.torch.load(model, dense, tune("numbers", "--problem", "bf16:768x256:f32-f32"))
    assert isinstance(model.up, quernel.torch.QuantLinear)
    for name, value in NUMBERS.items():
        assert torch.equal(model.get_buffer(name), value)


@pytest.mark.parametrize(
    "bad, why",
    [
        (lambda x: x.requires_grad_(), "x cannot be read by DLPack: .*require gradient"),
        (lambda x: x.to("meta"), "x cannot be read by DLPack: .*meta"),
        (lambda x: x.to_sparse(), "x cannot be read by DLPack: "),
        (torch._neg_view, r"x is negated.*resolve_neg"),
        (lambda x: x.to(torch.int64), "x has elements of torch.int64"),
        (lambda x: x.bfloat16(), "x is bf16: 'int4.g128:768x256:f32-f32' wants f32"),
    ],
)
def test_tensors_that_are_refused(models: Path, gptq: Path, bad: Callable[[Any], Any], why: str) -> None:
    planes = quernel.Checkpoint(models / "tiny-llama-gptq4").planes("model.layers.0.mlp.up_proj.weight")
    weight = quernel.open(gptq).bind("int4.g128:768x256:f32-f32").prepack(planes)
    x = torch.randn(2, 256)
    with pytest.raises(quernel.ArgumentError, match=why):
        weight.gemm(bad(x.clone()))
    with torch.no_grad():  # where nobody asks for a gradient
        assert torch.equal(weight.gemm(torch.nn.Parameter(x)), weight.gemm(x))


def test_no_gradient(models: Path, gptq: Path) -> None:
    planes = quernel.Checkpoint(models / "tiny-llama-gptq4").planes("model.layers.0.mlp.up_proj.weight")
    layer = quernel.torch.QuantLinear(quernel.open(gptq).bind("int4.g128:768x256:f32-f32").prepack(planes))
    y = layer(torch.randn(2, 256, requires_grad=True))
    with pytest.raises((RuntimeError, NotImplementedError)):
        y.sum().backward()
