"""Checkpoints and planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quernel

LAYER = "model.layers.0.self_attn.{}_proj.weight"


def test_weights_of_a_checkpoint(models: Path) -> None:
    with quernel.Checkpoint(models / "tiny-llama-gptq4") as checkpoint:
        quantized = [t for t in checkpoint if t.quantized]
        assert len(quantized) == 4 * 7
        assert {t.format for t in quantized} == {"int4.g128"}
        t = checkpoint.find(LAYER.format("q"))
        assert t is not None and (t.dialect, t.n, t.k, t.role) == ("gptq", 256, 256, "linear")
        assert checkpoint.find("nothing") is None
        assert checkpoint.config is not None and checkpoint.config["hidden_size"] == 256
        norm, kind = checkpoint.array("model.norm.weight")
        assert (norm.shape, kind) == ((256,), "bf16") and not norm.flags.writeable
    with pytest.raises(quernel.Error, match="is closed"):
        checkpoint.find("model.norm.weight")


def test_header_of_a_gguf(models: Path) -> None:
    checkpoint = quernel.Checkpoint(models / "tiny-llama-q4_0.gguf")
    assert checkpoint.config is None
    assert checkpoint.text("general.architecture") == "llama"
    assert checkpoint.number("llama.attention.head_count") == 4
    assert checkpoint.number("llama.nothing") is None
    with pytest.raises(quernel.ArgumentError, match="Q4_0"):
        checkpoint.array("blk.0.attn_q.weight")


def test_what_is_not_there(models: Path) -> None:
    with pytest.raises(quernel.FileError, match="nowhere"):
        quernel.Checkpoint("nowhere")
    checkpoint = quernel.Checkpoint(models / "tiny-llama-gptq4")
    with pytest.raises(KeyError, match="nothing.weight"):
        checkpoint.planes("nothing.weight")
    with pytest.raises(KeyError, match="nothing.weight"):
        checkpoint.array("nothing.weight")
    with pytest.raises(quernel.ArgumentError):
        checkpoint.planes(LAYER.format("q"), slice=1)


def test_act_order(models: Path) -> None:
    planes = quernel.Checkpoint(models / "tiny-llama-gptq4-act").planes(LAYER.format("q"))
    assert planes.perm is not None and sorted(planes.perm) == list(range(256))


@pytest.mark.parametrize("name", ["tiny-llama-gptq4", "tiny-llama-bnb-nf4", "tiny-llama-ct-w8a8"])
def test_rows_and_stacks(models: Path, name: str) -> None:
    checkpoint = quernel.Checkpoint(models / name)
    q, k = (checkpoint.planes(LAYER.format(part)) for part in "qk")
    both = quernel.Planes.stack([q, k])
    assert (both.n, both.k, both.format) == (q.n + k.n, q.k, q.format)
    back = both.rows(slice(q.n, None))
    for plane in k.planes:
        assert np.array_equal(back[plane], k[plane]) and back.type(plane) == k.type(plane)


def test_blocks_of_rows(models: Path) -> None:
    checkpoint = quernel.Checkpoint(models / "tiny-llama-ct-fp8-block")
    q, k = (checkpoint.planes(LAYER.format(part)) for part in "qk")
    both = quernel.Planes.stack([q, k])
    assert np.array_equal(both["scale"], np.concatenate([q["scale"], k["scale"]])) and len(both["scale"]) == 3
    with pytest.raises(quernel.ArgumentError, match="scales for 128 rows"):
        both.rows(slice(64))


def test_what_does_not_stack(models: Path) -> None:
    q = quernel.Checkpoint(models / "tiny-llama-gptq4").planes(LAYER.format("q"))
    acts = quernel.Checkpoint(models / "tiny-llama-gptq4-act")
    with pytest.raises(quernel.ArgumentError, match="differ in format"):
        quernel.Planes.stack([q, acts.planes(LAYER.format("k"))])
    fp4 = quernel.Checkpoint(models / "tiny-llama-ct-nvfp4")
    one, other = (fp4.planes(f"model.layers.{i}.mlp.down_proj.weight") for i in (0, 1))
    with pytest.raises(quernel.ArgumentError, match="is not the same"):
        quernel.Planes.stack([one, other])


def test_stacks_of_experts(models: Path) -> None:
    checkpoint = quernel.Checkpoint(models / "arch" / "qwen3_moe")
    name = "model.layers.0.mlp.experts.*.down_proj.weight"
    stack = checkpoint.stacks[name]
    assert (stack.experts, stack.n, stack.k, stack.problem) == (6, 32, 24, "bf16:6x32x24")
    for e, planes in enumerate(checkpoint.experts(name)):
        assert np.array_equal(planes["codes"], checkpoint.planes(name.replace("*", str(e)))["codes"])
    assert e + 1 == stack.experts
    with pytest.raises(KeyError, match="no stack nothing"):
        next(checkpoint.experts("nothing"))
