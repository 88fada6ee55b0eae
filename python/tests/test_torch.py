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
    y = quernel.torch.QuantLinear(weight, bias)(x)
    assert (y.dtype, y.shape) == (dtype, (2, 5, 768))
    torch.testing.assert_close(y.double(), x.double() @ torch.tensor(w).T + bias.double(), atol=0.05, rtol=0.02)


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


def test_no_gradient(models: Path, gptq: Path) -> None:
    planes = quernel.Checkpoint(models / "tiny-llama-gptq4").planes("model.layers.0.mlp.up_proj.weight")
    layer = quernel.torch.QuantLinear(quernel.open(gptq).bind("int4.g128:768x256:f32-f32").prepack(planes))
    y = layer(torch.randn(2, 256, requires_grad=True))
    with pytest.raises((RuntimeError, NotImplementedError)):
        y.sum().backward()
