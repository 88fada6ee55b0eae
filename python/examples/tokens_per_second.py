"""Tokens per second of one model: with Quernel's kernels, and with PyTorch's own bf16 and int4.

    python tokens_per_second.py CHECKPOINT PACK [--tokens 64] [--prompt 16] [--rounds 5] [--threads N]

Text is made greedily, one token a step, with a cache. The ways take turns, so that whatever else the machine does meets
all of them. What is printed is the median of the rounds, and the slowest and fastest beside it.

PyTorch's models have random weights of the checkpoint's shapes: their time does not depend on values. Its int4 is
torch.ops.aten._weight_int4pack_mm_for_cpu, with a scale and a zero point for 128 codes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

import quernel.torch

GROUP = 128


class Int4(nn.Module):
    """PyTorch's own int4 in the place of a dense layer."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        w = layer.weight.float().reshape(layer.out_features, -1, GROUP)
        low = w.amin(-1, keepdim=True)
        scale = (w.amax(-1, keepdim=True) - low) / 15
        codes = ((w - low) / scale).round().clamp(0, 15).to(torch.int32).reshape(layer.weight.shape)
        both = torch.cat([scale, low + 8 * scale], -1).transpose(0, 1).contiguous().bfloat16()
        self.register_buffer("packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1))
        self.register_buffer("scales", both)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales)
        return y.reshape(*x.shape[:-1], -1)


def dense(config: Any) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    return model


def int4(config: Any) -> nn.Module:
    model = dense(config)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and name != "lm_head":
            setattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], Int4(layer))
    return model


def tuned(config: Any, checkpoint: str, pack: str) -> nn.Module:
    with quernel.torch.skeleton():
        model = dense(config)
    return quernel.torch.load(model, checkpoint, pack)


@torch.no_grad()
def seconds(model: Any, prompt: torch.Tensor, tokens: int) -> float:
    """Time of so many steps behind a prompt."""
    out = model(prompt, use_cache=True)
    begun = time.perf_counter()
    for _ in range(tokens):
        last = out.logits[:, -1:].argmax(-1)
        out = model(last, past_key_values=out.past_key_values, use_cache=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="tokens per second beside PyTorch's own bf16 and int4")
    parser.add_argument("checkpoint", help="a folder with config.json and safetensors")
    parser.add_argument("pack", help="what `quernel tune CHECKPOINT` made on this machine")
    for name, value in (("--tokens", 64), ("--prompt", 16), ("--rounds", 5), ("--threads", 0)):
        parser.add_argument(name, type=int, default=value)
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    config = AutoConfig.from_pretrained(a.checkpoint)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    ways: dict[str, Callable[[], nn.Module]] = {
        "quernel": lambda: tuned(config, a.checkpoint, a.pack),
        "PyTorch bf16": lambda: dense(config),
        "PyTorch int4": lambda: int4(config),
    }
    models = {name: make() for name, make in ways.items()}
    prompt = torch.randint(0, config.vocab_size, (1, a.prompt))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(a.rounds + 1):
        for name, model in models.items():
            rates[name].append(a.tokens / seconds(model, prompt, a.tokens))
    print(f"{a.checkpoint}: {a.tokens} tokens behind {a.prompt}, {a.rounds} rounds, {torch.get_num_threads()} threads")
    print(f"{'':14}{'tokens/s':>10}{'slowest':>10}{'fastest':>10}{'MB':>10}")
    for name, (_, *kept) in rates.items():  # the first round warms up
        size = quernel.torch.memory(models[name]) / 1e6
        print(f"{name:14}{statistics.median(kept):10.1f}{min(kept):10.1f}{max(kept):10.1f}{size:10.1f}")


if __name__ == "__main__":
    main()
