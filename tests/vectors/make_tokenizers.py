"""Writes unicode.txt and tokenizers.json: small tokenizers, and what the libraries make of that text with them.

    pip install tokenizers sentencepiece protobuf && python tests/vectors/make_tokenizers.py

Merges are learned from text that is not split, so that each border of a split shows in the ids; all tokenizers of a kind
share them. They come from texts of this repository and are others each time. What is kept of the ids is their number,
the first ones, and the FNV-1a hash of all as little-endian i32."""
import io
import json
import os
import random

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

here = os.path.dirname(os.path.abspath(__file__))
random.seed(1)

# Letters of many scripts, combining marks, symbols, controls, what is not assigned. Normal forms of characters that are
# newer than the tables of `tokenizers` are left out.
RANGES = [(1, 0x7f)] * 6 + [
    (0x80, 0x24f), (0x250, 0x36f), (0x370, 0x3ff), (0x400, 0x4ff), (0x590, 0x5ff), (0x600, 0x6ff), (0x900, 0x97f),
    (0xe00, 0xe7f), (0x1100, 0x11ff), (0x1800, 0x18af), (0x1e00, 0x1eff), (0x2000, 0x206f), (0x2150, 0x218f),
    (0x2460, 0x24ff), (0x3000, 0x30ff), (0x4e00, 0x9fff), (0xac00, 0xd7a3), (0xfb00, 0xfb4f), (0xff00, 0xffef),
    (0x10300, 0x1039f), (0x1d400, 0x1d7ff), (0x1f300, 0x1f64f), (0xe0000, 0xe007f), (0x20000, 0x2a6df)]
BETWEEN = [" ", "  ", "\n", "\n\n\n", "\r\n", "\t", "   \n ", "'s", "'LL", "'\u017f", " 12345", " Word", " (x) {", "<|end|>",
           " <|end|> ", "a<|end|>b", "<|strip|>", "  <|strip|>  ", "a<|word|>", " <|word|> ", "\u180e", "\u0085", "\u00a0",
           "\u200b", "\u200d", "e\u0301", "\u1e9b\u0323", "\u212b"]


def make_text():
    prose = open(os.path.join(here, "../models/valid.txt"), encoding="utf8").read()[:3000]
    code = open(os.path.join(here, "../oom.h"), encoding="utf8").read()[:2000]
    out, n = [prose, code], 0
    while n < 29000:
        low, high = random.choice(RANGES)
        word = "".join(chr(random.randint(low, high)) for _ in range(random.randint(1, 8)))
        out += [word, random.choice(BETWEEN) if random.random() < .3 else ""]
        n += len(word)
    return "".join(out)


def summary(ids):
    h = 0xcbf29ce484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        h = (h ^ byte) * 0x100000001b3 % (1 << 64)
    return {"count": len(ids), "hash": "%016x" % h, "first": ids[:40]}


# ---- Byte pair encoding, by `tokenizers` ------------------------------------------------------------------------------

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LLAMA3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
QWEN35 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + SPACES


def cased(tail, digits):
    return (r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + "+" + tail + r"|[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER + "*"
            + tail + "|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES)


DEEPSEEK3 = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
             r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
             r"| ?[\p{P}\p{S}]+[\r\n]*|" + SPACES]
DEEPSEEK_CODER = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"]

pre, norm = pre_tokenizers, normalizers


def split(pattern, behavior="isolated", invert=False):
    return pre.Split(Regex(pattern), behavior, invert)


def byte_level(*before, **options):
    return pre.Sequence([*before, pre.ByteLevel(add_prefix_space=False, **options)])


def by_pattern(*patterns):
    return byte_level(*map(split, patterns), use_regex=False)


# name, model, normalizer, pre-tokenizer, options of the model; "pre": the name of the same in a GGUF
CASES = [
    ("gpt-2", "bytes", None, byte_level(), dict(pre="gpt-2")),
    ("smollm", "bytes", None, byte_level(pre.Digits(True)), dict(pre="smollm")),
    ("llama-bpe", "bytes", None, by_pattern(LLAMA3), dict(pre="llama-bpe", ignore_merges=True)),
    ("qwen2", "bytes", norm.NFC(), by_pattern(QWEN2), dict(pre="qwen2")),
    ("qwen35", "bytes", norm.NFC(), by_pattern(QWEN35), dict(pre="qwen35")),
    ("o200k", "bytes", None, by_pattern(cased(CONTRACTION + "?", r"\p{N}{1,3}")), dict(pre="gpt-4o")),
    ("tekken", "bytes", None, by_pattern(cased("", r"\p{N}")), dict(pre="tekken", ignore_merges=True)),
    ("deepseek-v3", "bytes", None, by_pattern(*DEEPSEEK3), dict(pre="deepseek-v3")),
    ("deepseek-coder", "bytes", None, by_pattern(*DEEPSEEK_CODER), dict(pre="deepseek-coder")),
    ("some bytes without a token", "some bytes", None, pre.ByteLevel(add_prefix_space=True), {}),
    ("splits", "bytes", norm.NFKD(), byte_level(
        pre.Digits(False), split(r"\s", "merged_with_next"), split(r"[aeiou]", "merged_with_previous"),
        split(r"(?=\p{Lu})"), split(r"\p{P}", "contiguous", True), split(r"\w+|[^\w\s]+", "removed", True),
        use_regex=False), {}),
    ("gemma", "characters", norm.Replace(" ", "▁"), pre.Split(" ", "merged_with_previous"),
     dict(byte_fallback=True, fuse_unk=True)),
    ("llama 2", "characters", norm.Sequence([norm.Prepend("▁"), norm.Replace(" ", "▁")]), None,
     dict(byte_fallback=True, fuse_unk=True)),
    ("metaspace, unknown characters each", "characters", None, pre.Metaspace("▁", "first"), {}),
    ("metaspace, unknown characters together", "characters", norm.Replace(Regex(r"\s+"), " "),
     pre.Metaspace("▁", "always", False), dict(fuse_unk=True)),
]


def learn(text, tokens, alphabet, limit, pretokenizer):
    special = ["<unk>"] + ["<0x%02X>" % b for b in range(256)] if pretokenizer is None else []
    t = Tokenizer(models.BPE())
    if pretokenizer: t.pre_tokenizer = pretokenizer
    t.train_from_iterator([text[:9000]], trainers.BpeTrainer(
        vocab_size=len(special) + tokens, special_tokens=special, initial_alphabet=alphabet, limit_alphabet=limit,
        max_token_length=12, show_progress=False))
    return json.loads(t.to_str())["model"]


def make_models(text):
    plain = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    some = learn(text, 400, [], 120, plain)
    some["merges"] = [" ".join(m) for m in some["merges"]]
    return {"bytes": learn(text, 700, pre.ByteLevel.alphabet(), 256, plain), "some bytes": some,
            "characters": learn(text.replace(" ", "▁"), 400, [], 100, None)}


def make_bpe(text, known):
    for name, model, normalizer, pretokenizer, o in CASES:
        o = dict(o)
        gguf = o.pop("pre", None)
        j = {**json.loads(Tokenizer(models.BPE()).to_str()), "model": {**known[model], **o}}
        if model == "characters": j["model"]["unk_token"] = "<unk>"
        t = Tokenizer.from_str(json.dumps(j))
        if normalizer: t.normalizer = normalizer
        if pretokenizer: t.pre_tokenizer = pretokenizer
        t.add_special_tokens([AddedToken("<|end|>", normalized=False)])
        if not gguf:
            t.add_special_tokens([AddedToken("<|strip|>", lstrip=True, rstrip=True, normalized=False)])
            t.add_tokens([AddedToken("<|word|>", single_word=True, normalized=True), AddedToken("( x", normalized=True),
                          AddedToken("\n\n", normalized=False), AddedToken("(x", normalized=True)])
        j = json.loads(t.to_str())
        for key in ("vocab", "merges"): del j["model"][key]
        yield {"name": name, "pre": gguf, "model": model, "tokenizer": j,
               **summary(t.encode(text, add_special_tokens=False).ids)}


# ---- By scores, by `sentencepiece` ------------------------------------------------------------------------------------

def make_scores(text):
    for name, prefix, by_bytes in [("prefix", True, True), ("no prefix", False, True), ("unknown", True, False)]:
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text[:4800].split("\n")), model_writer=out, model_type="bpe",
            vocab_size=560 if by_bytes else 300, byte_fallback=by_bytes, add_dummy_prefix=prefix, minloglevel=9,
            normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=.98,
            user_defined_symbols=["\n\n", "▁▁", "▁▁▁▁", "\n"], hard_vocab_limit=False)
        m = sentencepiece_model_pb2.ModelProto.FromString(out.getvalue())
        sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
        yield {"name": name, "prefix": prefix, "pieces": [[p.piece, p.score, p.type] for p in m.pieces],
               **summary(sp.encode(text))}


def lines(values):
    return ",\n".join(json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in values)


text = make_text()
known = make_models(text)
with open(os.path.join(here, "unicode.txt"), "w", encoding="utf8", newline="") as f: f.write(text)
with open(os.path.join(here, "tokenizers.json"), "w", encoding="utf8") as f:
    small = {k: {"vocab": m["vocab"], "merges": m["merges"]} for k, m in known.items()}
    f.write("{\"models\": %s,\n\"bpe\": [\n%s\n],\n\"scores\": [\n%s\n]}\n"
            % (lines([small]), lines(make_bpe(text, known)), lines(make_scores(text))))
