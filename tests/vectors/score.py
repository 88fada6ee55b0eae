"""Prints tests/score_vectors.h: scores of rows of logits, and statistics, by NumPy and SciPy in float64.

    python3 tests/vectors/score.py > tests/score_vectors.h
"""
import numpy as np
from scipy import stats

# vocabulary, spread and offset of the reference's logits, spread and offset of what is added for the candidate's
ROWS = [(8, 2, 0, 0, 0), (256, 10, 0, 0.01, 0), (256, 10, 0, 1e-4, 0), (256, 30, 500, 3, -500), (5000, 40, -80, 2, 7),
        (50000, 12, 3, 0.3, 0), (50000, 12, 3, 12, 0), (3, 200, 0, 200, 0), (1000, 0, 5, 0, 1)]


def uniform(n, seed):
    """The test computes the same, in double, and rounds to f32 as late."""
    i = np.arange(n, dtype=np.uint64)
    return (((i + 1) * 2654435761 + seed * 40503) % 2**32).astype(np.float64) / 2**32 - 0.5


def row(vocab, spread, offset, noise, shift, seed):
    p = (spread * uniform(vocab, seed) + offset).astype(np.float32)
    q = (p.astype(np.float64) + noise * uniform(vocab, seed + 77) ** 3 * 8 + shift).astype(np.float32)
    right = (seed * 31) % vocab
    p, q = p.astype(np.longdouble), q.astype(np.longdouble)
    ln_p = p - p.max() - np.log(np.exp(p - p.max()).sum())
    ln_q = q - q.max() - np.log(np.exp(q - q.max()).sum())
    kl = (np.exp(ln_p) * (ln_p - ln_q)).sum()
    return -ln_q[right], -ln_p[right], kl, np.exp(ln_p.max()), int(p.argmax() == q.argmax())


def table(kind, name, lines):
    print(f"static const {kind} {name}[] = {{")
    for line in lines:
        print("    {" + ", ".join(x if isinstance(x, str) else f"{float(x):.17g}" for x in line) + "},")
    print("};")


print("/* score_vectors.h - made by tests/vectors/score.py. */")
table("row_vector", "row_vectors", [(*r, *row(*r, seed + 1)) for seed, r in enumerate(ROWS)])
DF = [1, 1.5, 2, 9, 63, 1999, 1e6]
table("t_vector", "t_vectors", [(df, p, stats.t.ppf(p, df), 1.25, stats.t.cdf(1.25, df), -30, stats.t.cdf(-30, df))
                                for df in DF for p in (1e-6, .025, .3, .995)])
table("mcnemar_vector", "mcnemar_vectors",
      [(w, b, min(1, 2 * stats.binom.cdf(min(w, b), w + b, .5))) for w, b in
       ((0, 0), (0, 1), (1, 7), (10, 3), (40, 40), (300, 200), (5000, 5200))])
