"""Prints what the library `tokenizers` makes of two texts with the models of tests/real-models: how many ids, and half of
the FNV-1a hash of all as little-endian i32, as tests/lua/real_models.lua has them.

    pip install transformers gguf && python tests/vectors/real_ids.py build/real-models"""
import os
import sys

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

tests = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def summary(ids):
    h = 0xcbf29ce484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        h = (h ^ byte) * 0x100000001b3 % (1 << 64)
    return "%d %08x" % (len(ids), h >> 32)


for model in "smollm2.gguf", "gemma3.gguf":
    t = AutoTokenizer.from_pretrained(sys.argv[1], gguf_file=model).backend_tokenizer
    if model == "smollm2.gguf":  # transformers 5.24 does not look at tokenizer.ggml.pre, which says that digits stand alone
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), t.pre_tokenizer])
    for path in "models/text/valid.txt", "vectors/unicode.txt":
        text = open(os.path.join(tests, path), encoding="utf8", newline="").read()
        print(model, path, summary(t.encode(text, add_special_tokens=False).ids))
