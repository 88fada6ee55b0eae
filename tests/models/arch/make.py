#!/usr/bin/env python3
"""Tiny checkpoints of every architecture that eval/decoder evaluates, and what transformers computes with them.

    make.py [NAME...]        writes NAME/{config.json, model.safetensors, expected.safetensors[, model.gguf]} beside this file

Weights are random (seed 1) and rounded to bf16; `expected` has the ids of one window and its logits in f32. Sizes are
chosen so that what is special about an architecture shows: windows and original contexts are shorter than the text,
heads are not hidden / heads wide, queries share keys. A GGUF has the same numbers, named and rearranged as llama.cpp's
conversion does it. Needs torch, transformers, safetensors and gguf; no network."""
import json, os, shutil, sys
import torch, transformers as tf, gguf
import numpy as np
from safetensors.torch import save_file, load_file

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB, LENGTH = 96, 40
COMMON = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=2, head_dim=16, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
              pad_token_id=0, tie_word_embeddings=False, rms_norm_eps=0.02)
DELTA = dict(num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
             linear_num_value_heads=6, linear_key_head_dim=8, linear_value_head_dim=12, linear_conv_kernel_dim=4)
MOE = dict(num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24)


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1000.0, **more}}


def by_type(full, sliding):
    return {"rope_parameters": {"full_attention": full, "sliding_attention": sliding}}


# name -> class of its configuration, settings
MODELS = {
    "llama": (tf.LlamaConfig, dict(attention_bias=True, mlp_bias=True, rms_norm_eps=0.05, **rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16))),
    "llama-dynamic": (tf.LlamaConfig, dict(max_position_embeddings=24, tie_word_embeddings=True,
                                           **rope("dynamic", factor=2.0))),
    "mistral": (tf.MistralConfig, dict(sliding_window=8, **rope("linear", factor=4.0))),
    "mixtral": (tf.MixtralConfig, dict(sliding_window=None, num_local_experts=4, num_experts_per_tok=2,
                                       **rope("default"))),
    "qwen2": (tf.Qwen2Config, dict(head_dim=8, tie_word_embeddings=True, **rope(
        "yarn", factor=4.0, original_max_position_embeddings=16))),
    "qwen3": (tf.Qwen3Config, dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=8, max_window_layers=1,
                                   tie_word_embeddings=True, **rope(
                                       "yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7,
                                       mscale_all_dim=0.3))),
    "qwen3_vl": (tf.Qwen3VLConfig, dict(
        text_config=dict(COMMON, **rope("default", mrope_section=[4, 2, 2], mrope_interleaved=True)),
        vision_config=dict(depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=32, patch_size=2,
                           spatial_merge_size=1, temporal_patch_size=1, num_position_embeddings=4,
                           deepstack_visual_indexes=[0]), tie_word_embeddings=False)),
    "qwen3_moe": (tf.Qwen3MoeConfig, dict(MOE, num_hidden_layers=3, norm_topk_prob=False, mlp_only_layers=[1], **rope("default"))),
    "qwen3_next": (tf.Qwen3NextConfig, dict(MOE, **DELTA, shared_expert_intermediate_size=20,
                                            **rope("default", partial_rotary_factor=0.25))),
    "qwen3_5": (tf.Qwen3_5TextConfig, dict(DELTA, **rope("default", partial_rotary_factor=0.25,
                                                         mrope_section=[1, 1, 0]))),
    "qwen3_5_moe": (tf.Qwen3_5MoeTextConfig, dict(MOE, **DELTA, shared_expert_intermediate_size=20,
                                                  **rope("default", partial_rotary_factor=0.25))),
    "gemma3": (tf.Gemma3TextConfig, dict(num_hidden_layers=6, query_pre_attn_scalar=24, sliding_window=8,
                                         final_logit_softcapping=20.0, attn_logit_softcapping=None,
                                         tie_word_embeddings=True,
                                         **by_type({"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
                                                   {"rope_type": "default", "rope_theta": 100.0}))),
    "gemma2": (tf.Gemma2Config, dict(query_pre_attn_scalar=24, sliding_window=8, final_logit_softcapping=8.0,
                                     attn_logit_softcapping=2.0, tie_word_embeddings=True, **rope("default"))),
    "phi3": (tf.Phi3Config, dict(head_dim=8, sliding_window=12, original_max_position_embeddings=24, max_position_embeddings=96,
                                 **rope("longrope", partial_rotary_factor=0.75, short_factor=[1.0, 1.1, 1.3],
                                        long_factor=[1.5, 2.0, 4.0], original_max_position_embeddings=24))),
    "granite": (tf.GraniteConfig, dict(head_dim=8, attention_bias=True, embedding_multiplier=6.0, logits_scaling=4.0,
                                       residual_multiplier=0.3, attention_multiplier=0.1, tie_word_embeddings=True,
                                       **rope("default"))),
    "olmo2": (tf.Olmo2Config, dict(head_dim=8, **rope("default"))),
    "olmo3": (tf.Olmo3Config, dict(head_dim=8, num_hidden_layers=4, sliding_window=8,
                                   **by_type({"rope_type": "yarn", "rope_theta": 3000.0, "factor": 4.0, "attention_factor": 1.3,
                                              "original_max_position_embeddings": 16},
                                             {"rope_type": "default", "rope_theta": 3000.0}))),
    "smollm3": (tf.SmolLM3Config, dict(head_dim=8, num_hidden_layers=4, tie_word_embeddings=True, **rope("default"))),
    "gpt_oss": (tf.GptOssConfig, dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=8, swiglu_limit=1.5,
                                      **rope("yarn", factor=4.0, truncate=False, beta_fast=8.0, beta_slow=1.0,
                                             original_max_position_embeddings=16))),
    "gpt_oss-mxfp4": (tf.GptOssConfig, dict(num_local_experts=3, num_experts_per_tok=2, intermediate_size=32,
                                            sliding_window=8, **rope("default"))),
}


def randomise(model, g):
    """Values large enough that every part of the model shows in the logits."""
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=g)
        if name.endswith("A_log"): r = torch.log(torch.rand(p.shape, generator=g) * 2 + .1)
        elif "norm" in name: r = .3 * r + (0 if is_offset(model, name) else 1)
        elif p.ndim == 1 or "bias" in name: r = .4 * r
        elif "embed" in name: pass
        elif "conv1d" in name: r = .6 * r
        else: r = 1.2 * r / p.shape[1 if "experts.gate_up_proj" in name and "GptOss" in type(model).__name__ else -1] ** .5
        if name.endswith("gate_up_proj") and "GptOss" in type(model).__name__: r = 4 * r  # to reach the limits
        p.data.copy_(r)


def is_offset(model, name):  # the norm multiplies by 1 + w
    return ("Gemma" in type(model).__name__ or "Qwen3Next" in type(model).__name__ or "Qwen3_5" in type(model).__name__) \
        and "linear_attn.norm" not in name


# ---- config.json as older versions of transformers wrote it ----

def flat(c, keys=()):  # rope_theta and rope_scaling in place of rope_parameters; what the architecture implies is left out
    r = c.pop("rope_parameters")
    c["rope_theta"] = r.pop("rope_theta")
    if "partial_rotary_factor" in r: c["partial_rotary_factor"] = r.pop("partial_rotary_factor")
    kind = r.pop("rope_type")
    c["rope_scaling"] = {"type": kind, **r} if kind != "default" else None
    for k in keys: c.pop(k)
    return c


def old_gemma3(c):  # as the multimodal ones: the decoder is one part, which leaves out what is usual
    r = c.pop("rope_parameters")
    c.update(rope_theta=r["full_attention"]["rope_theta"], rope_local_base_freq=r["sliding_attention"]["rope_theta"],
             rope_scaling={"rope_type": "linear", "factor": r["full_attention"]["factor"]}, sliding_window_pattern=6)
    for k in ("layer_types", "vocab_size"): c.pop(k)
    return {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": c,
            "vision_config": {"hidden_size": 7, "num_hidden_layers": 1, "model_type": "siglip_vision_model"}}


def old_olmo3(c):
    r = c.pop("rope_parameters")["full_attention"]
    c["rope_theta"], c["rope_scaling"] = r.pop("rope_theta"), r
    c.pop("layer_types")
    return c


def old_phi3(c):
    c = flat(c)
    c["rope_scaling"] = {"type": "su", **{k: c["rope_scaling"][k] for k in ("short_factor", "long_factor")}}
    return c


OLD = {"llama": flat, "qwen3": lambda c: flat(c, ["layer_types"]), "gpt_oss": lambda c: flat(c, ["layer_types"]),
       "smollm3": lambda c: flat(c, ["layer_types", "no_rope_layers", "no_rope_layer_interval"]), "phi3": old_phi3,
       "qwen3_next": lambda c: {**flat(c, ["layer_types"]), "full_attention_interval": 2}, "gemma3": old_gemma3,
       "olmo3": old_olmo3}

# ---- GGUF, as llama.cpp's conversion makes it ----

A = gguf.MODEL_ARCH
GGUF = {"llama": A.LLAMA, "mixtral": A.LLAMA, "qwen2": A.QWEN2, "qwen3_vl": A.QWEN3VL, "gemma2": A.GEMMA2, "gemma3": A.GEMMA3, "phi3": A.PHI3, "granite": A.GRANITE,
        "olmo3": A.OLMO2, "smollm3": A.SMOLLM3, "gpt_oss": A.GPT_OSS, "qwen3_next": A.QWEN3NEXT, "qwen3_5": A.QWEN35}
# What a GGUF does not say, and what is meant then.
UNSAID = {"gemma2": {"query_pre_attn_scalar": 16}, "gemma3": {"query_pre_attn_scalar": 16}, "gpt_oss": {"swiglu_limit": 7.0}}
PERMUTED = ("llama", "mixtral", "granite", "smollm3")


def permute(t, heads):
    return t.reshape(heads, 2, t.shape[0] // heads // 2, *t.shape[1:]).swapaxes(1, 2).reshape(t.shape)


def tiled(t, c, dim, width):  # heads of values, from grouped by key head to taking turns
    k, v = c["linear_num_key_heads"], c["linear_num_value_heads"]
    s = t.shape
    return t.reshape(*s[:dim], k, v // k, width, *s[dim + 1:]).swapaxes(dim, dim + 1).reshape(s)


def split_delta(c, key, t):  # qkvz of each key head -> all q, k and v; all z
    k, kd, vd = c["linear_num_key_heads"], c["linear_key_head_dim"], c["linear_value_head_dim"]
    r = c["linear_num_value_heads"] // k * vd
    q, kk, v, z = torch.split(t.reshape(k, 2 * kd + 2 * r, -1), [kd, kd, r, r], dim=1)
    stem = key[:-len("in_proj_qkvz.weight")]
    yield stem + "in_proj_qkv.weight", torch.cat([x.reshape(-1, t.shape[1]) for x in (q, kk, v)])
    yield stem + "in_proj_z.weight", z.reshape(-1, t.shape[1])


def tile_delta(c, key, t):
    d, qk = c["linear_value_head_dim"], 2 * c["linear_num_key_heads"] * c["linear_key_head_dim"]
    if "in_proj_qkv." in key or "conv1d" in key: return torch.cat([t[:qk], tiled(t[qk:], c, 0, d)])
    if "in_proj_z." in key: return tiled(t, c, 0, d)
    if "out_proj" in key: return tiled(t, c, 1, d)
    return t if "norm" in key else tiled(t, c, 0, 1)


def rearranged(name, c, tensors):
    experts = {}
    for key, t in tensors.items():
        if "visual" in key: continue
        key = key.replace("language_model.", "")
        if name in PERMUTED and ("q_proj" in key or "k_proj" in key):
            t = permute(t, c["num_attention_heads"] if "q_proj" in key else c["num_key_value_heads"])
        if "norm" in key and name in ("gemma2", "gemma3", "qwen3_next", "qwen3_5") and "linear_attn.norm" not in key: t = t + 1
        if "conv1d" in key: t = t.squeeze(1)
        if "linear_attn" in key and name == "qwen3_5": t = tile_delta(c, key, t)
        if key.endswith("A_log"): t = -t.exp()
        if key.endswith("dt_bias"): key = key[:-len("dt_bias")] + "dt_proj.bias"
        if key.endswith("shared_expert_gate.weight"): t = t.squeeze(0)
        part = key.split(".experts.")
        if key.endswith("in_proj_qkvz.weight"): yield from split_delta(c, key, t)
        elif len(part) == 2 and part[1][0].isdigit():
            experts.setdefault(part[0] + ".experts." + part[1].split(".", 1)[1], []).append((int(part[1].split(".")[0]), t))
        elif name == "gpt_oss" and "gate_up_proj" in key:  # their rows take turns; weights are stored in x out
            if t.ndim == 3: t = t.swapaxes(1, 2)
            for i, to in enumerate(("gate_proj", "up_proj")):
                yield key.replace("gate_up_proj_bias", to + ".bias").replace("gate_up_proj", to), t[:, i::2]
        elif name == "gpt_oss" and ".experts.down_proj" in key:
            yield key.replace("_bias", ".bias"), t.swapaxes(1, 2) if t.ndim == 3 else t
        else: yield key, t
    for key, list_ in experts.items(): yield key, torch.stack([t for _, t in sorted(list_, key=lambda x: x[0])])


def add_rope(w, name, c, today):  # `today`: under the key that the conversion writes now
    r = c["rope_parameters"]
    r = r.get("full_attention", r)
    dim = int(c["head_dim"] * r.get("partial_rotary_factor", 1)) if "head_dim" in c else 8
    w.add_rope_freq_base(r["rope_theta"])
    if name == "gemma3": w.add_rope_freq_base_swa(c["rope_parameters"]["sliding_attention"]["rope_theta"])
    w.add_rope_dimension_count(int(8 * .75) if name == "phi3" else dim)
    kind = r["rope_type"]
    if kind in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(kind))
        w.add_rope_scaling_factor(r["factor"])
    if kind in ("yarn", "longrope"): w.add_rope_scaling_orig_ctx_len(r["original_max_position_embeddings"])
    if "beta_fast" in r: w.add_rope_scaling_yarn_beta_fast(r["beta_fast"]), w.add_rope_scaling_yarn_beta_slow(r["beta_slow"])
    if "attention_factor" in r and today: w.add_rope_scaling_yarn_attn_factor(r["attention_factor"])
    elif "attention_factor" in r: w.add_rope_scaling_attn_factors(r["attention_factor"])
    if kind == "longrope":
        factor = c["max_position_embeddings"] / c["original_max_position_embeddings"]
        w.add_rope_scaling_attn_factors(np.sqrt(1 + np.log(factor) / np.log(c["original_max_position_embeddings"])))
        for which in ("long", "short"):
            w.add_tensor(f"rope_factors_{which}.weight", np.array(r[which + "_factor"], dtype=np.float32))
    if kind == "llama3":
        wave = 2 * np.pi * r["rope_theta"] ** (np.arange(0, dim, 2) / dim)
        mix = (r["original_max_position_embeddings"] / wave - r["low_freq_factor"]) / (r["high_freq_factor"] - r["low_freq_factor"])
        mix = np.clip(mix, 0, 1)
        w.add_tensor("rope_freqs.weight", (1 / ((1 - mix) / r["factor"] + mix)).astype(np.float32))


def add_keys(w, name, c):
    w.add_block_count(c["num_hidden_layers"]), w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"]), w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv([2, 2] if name == "granite" else c["num_key_value_heads"])  # for each layer
    w.add_layer_norm_rms_eps(c["rms_norm_eps"]), w.add_vocab_size(VOCAB)
    if "head_dim" in c: w.add_key_length(c["head_dim"]), w.add_value_length(c["head_dim"])
    if c.get("sliding_window"): w.add_sliding_window(c["sliding_window"])
    if name == "olmo3": w.add_sliding_window_pattern([t == "sliding_attention" for t in c["layer_types"]])
    if c.get("attn_logit_softcapping"): w.add_attn_logit_softcapping(c["attn_logit_softcapping"])
    if c.get("final_logit_softcapping"): w.add_final_logit_softcapping(c["final_logit_softcapping"])
    if name == "granite":
        w.add_attention_scale(c["attention_multiplier"]), w.add_embedding_scale(c["embedding_multiplier"])
        w.add_residual_scale(c["residual_multiplier"]), w.add_logit_scale(c["logits_scaling"])
    experts = c.get("num_local_experts", c.get("num_experts", 0))
    if experts:
        w.add_expert_count(experts), w.add_expert_used_count(c["num_experts_per_tok"])
        w.add_expert_feed_forward_length(c.get("moe_intermediate_size", c["intermediate_size"]))
    if "shared_expert_intermediate_size" in c: w.add_expert_shared_feed_forward_length(c["shared_expert_intermediate_size"])
    if "linear_num_key_heads" in c:
        w.add_ssm_conv_kernel(c["linear_conv_kernel_dim"]), w.add_ssm_state_size(c["linear_key_head_dim"])
        w.add_ssm_group_count(c["linear_num_key_heads"]), w.add_ssm_time_step_rank(c["linear_num_value_heads"])
        w.add_ssm_inner_size(c["linear_value_head_dim"] * c["linear_num_value_heads"]), w.add_full_attention_interval(2)


def make_gguf(name, folder, c, file="model.gguf"):
    arch = GGUF[name]
    w = gguf.GGUFWriter(os.path.join(folder, file), gguf.MODEL_ARCH_NAMES[arch])
    names = gguf.get_tensor_name_map(arch, c["num_hidden_layers"])
    add_keys(w, name, c), add_rope(w, name, c, file == "today.gguf")
    tensors = {k: t.float() for k, t in load_file(os.path.join(folder, "model.safetensors")).items()}
    for key, t in sorted(rearranged(name, c, tensors)):
        to = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if to is None: raise SystemExit(f"{name}: {key} has no name in a GGUF")
        if key.endswith(("sinks", "experts.gate_proj", "experts.up_proj", "experts.down_proj")): to += ".weight"
        t = t.contiguous().numpy()
        if name == "qwen2" and to.startswith("token_embd"):  # which is the head, too
            q8 = gguf.quants.quantize(t, gguf.GGMLQuantizationType.Q8_0)
            w.add_tensor(to, q8, raw_shape=q8.shape, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        elif t.ndim == 1 or "conv1d" in to or "bias" in to: w.add_tensor(to, t)
        else:
            bf16 = gguf.quants.quantize(t, gguf.GGMLQuantizationType.BF16)
            w.add_tensor(to, bf16, raw_shape=bf16.shape, raw_dtype=gguf.GGMLQuantizationType.BF16)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


# ---- MXFP4, as gpt-oss is distributed ----

E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])


def mxfp4(t):  # [E, in, out] -> codes [E, out, in/32, 16], two a byte; exponents [E, out, in/32]
    t = t.swapaxes(1, 2).reshape(t.shape[0], t.shape[2], -1, 32)
    e = torch.floor(torch.log2(t.abs().amax(-1))) - 2
    scaled = t / torch.exp2(e)[..., None]
    code = (scaled.abs()[..., None] - E2M1).abs().argmin(-1) + 8 * (scaled < 0)
    return (code[..., ::2] + 16 * code[..., 1::2]).to(torch.uint8), (e + 127).to(torch.uint8)


def quantize_experts(folder):
    path, tensors = os.path.join(folder, "model.safetensors"), {}
    for key, t in load_file(path).items():
        if key.endswith(("gate_up_proj", "down_proj")): tensors[key + "_blocks"], tensors[key + "_scales"] = mxfp4(t.float())
        else: tensors[key] = t
    save_file(tensors, path, metadata={"format": "pt"})
    path = os.path.join(folder, "config.json")
    config = json.load(open(path))
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn",
        "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
    json.dump(config, open(path, "w"), indent=1, sort_keys=True)


# ---- One model ----

def auto_class(config): return tf.AutoModelForImageTextToText if hasattr(config, "text_config") else tf.AutoModelForCausalLM


def load(folder, **changes):
    config = tf.AutoConfig.from_pretrained(folder)
    for k, v in changes.items(): setattr(config, k, v)
    return auto_class(config).from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager").float()


def logits_of(model, ids):
    with torch.no_grad(): return model(ids, use_cache=False).logits[0].float().contiguous()


def make(name):
    kind, settings = MODELS[name]
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    g = torch.Generator().manual_seed(1)
    config = kind(**(settings if "text_config" in settings else {**COMMON, **settings}))
    auto = auto_class(config)
    model = auto.from_config(config)
    randomise(model, g)
    model.to(torch.bfloat16).save_pretrained(folder)
    for extra in set(os.listdir(folder)) - {"config.json", "model.safetensors"}: os.remove(os.path.join(folder, extra))
    if name.endswith("mxfp4"): quantize_experts(folder)
    path = os.path.join(folder, "config.json")
    config = {k: v for k, v in json.load(open(path)).items() if k != "transformers_version"}
    json.dump(config, open(path, "w"), indent=1, sort_keys=True)
    ids = torch.randint(3, VOCAB, (1, LENGTH), generator=g)
    expected = {"ids": ids[0].to(torch.int32), "logits": logits_of(load(folder), ids)}
    if name in ("phi3", "llama-dynamic"):  # other frequencies within the original context
        expected["logits.short"] = logits_of(load(folder), ids[:, :20])
    if name in GGUF: make_gguf(name, folder, config.get("text_config", config))
    if name == "olmo3": make_gguf(name, folder, config, "today.gguf")
    if name == "qwen2":
        model = load(folder)
        e, q8 = model.model.embed_tokens.weight.data, gguf.GGMLQuantizationType.Q8_0
        e.copy_(torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(e.numpy(), q8), q8)))
        expected["logits.gguf"] = logits_of(model, ids)
    if name in UNSAID: expected["logits.gguf"] = logits_of(load(folder, **UNSAID[name]), ids)
    if name in OLD: json.dump(OLD[name](json.loads(json.dumps(config))), open(os.path.join(folder, "old.json"), "w"), indent=1)
    save_file(expected, os.path.join(folder, "expected.safetensors"))
    for file in os.listdir(folder): os.chmod(os.path.join(folder, file), 0o644)
    print(name, type(model).__name__, sum(p.numel() for p in model.parameters()), "parameters; logits",
          round(float(expected["logits"].std()), 2))


if __name__ == "__main__":
    tf.logging.set_verbosity_error()
    tf.utils.logging.disable_progress_bar()
    for name in sys.argv[1:] or MODELS: make(name)
