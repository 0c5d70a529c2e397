"""Computes the committed oracle files of serin-decide. See README.md."""

import hashlib
import json
import pathlib
import random

import mpmath
import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
import siphash24
from savvi.multinomial import Multinomial

HERE = pathlib.Path(__file__).parent
MASK = (1 << 64) - 1


def write(name, value):
    (HERE / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# --- Bucketing v1.


def rotl(x, n):
    return ((x << n) | (x >> (64 - n))) & MASK


def siphash_2_4(key, data):
    """Aumasson and Bernstein, SipHash: a fast short-input PRF (2012), section 2."""
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = rotl(v[1], 13) ^ v[0]
            v[0] = rotl(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = rotl(v[1], 17) ^ v[2]
            v[2] = rotl(v[2], 32)

    padded = data + b"\0" * (7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def keyed(domain, seed, data):
    key = hashlib.sha256(domain + seed.encode()).digest()[:16]
    h = siphash_2_4(key, data)
    assert h == int.from_bytes(siphash24.siphash24(data, key=key).digest(), "little")
    return h


assert siphash_2_4(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5  # the paper's own vector

rows = []
seeds = ["", "a", "serin", "3f0e8a5c-9d4b-4a8e-9b1e-2f6f2f0b7c11", "größe", "x" * 200]
keys = ["", "u", "user-1", "user-2", "12345678", "123456789", "jane@example.com", "日本", "k" * 1000]
for seed in seeds:
    for key in keys:
        data = key.encode()
        rows.append(
            {
                "seed": seed,
                "key": key,
                "bucket": (keyed(b"serin.bucket.v1\0", seed, data) * 100_000) >> 64,
                "unitHash": str(keyed(b"serin.unit.v1\0", seed, data)),
            }
        )
write("buckets.json", rows)

# --- The conditional e-process, from its definition.

mpmath.mp.dps = 60
rng = random.Random(1)


def grid():
    low, high = mpmath.mpf("1.1"), mpmath.mpf(30)
    return [low * (high / low) ** (mpmath.mpf(i) / 39) for i in range(40)]


def ln_e(cells, tolerance, too_few):
    total = mpmath.mpf(0)
    for g in grid():
        delta0 = mpmath.mpf(tolerance)
        delta1 = delta0 * g
        if too_few:
            delta0, delta1 = 1 / delta0, 1 / delta1
        product = mpmath.mpf(1)
        for weight, control, candidate in cells:
            w = mpmath.mpf(weight) / 100_000
            p0 = w * delta0 / (w * delta0 + 1 - w)
            p1 = w * delta1 / (w * delta1 + 1 - w)
            product *= (p1 / p0) ** candidate * ((1 - p1) / (1 - p0)) ** control
        total += product
    return float(mpmath.log(total / 40))


rows = []
scales = [0, 1, 5, 40, 1_000, 100_000, 10**9]
for i in range(120):
    cells = []
    for _ in range(rng.randint(1, 5)):
        scale = rng.choice(scales)
        weight = rng.choice([1, 100, 5_000, 10_000, 25_000, 50_000, 75_000, 90_000, 99_999])
        cells.append([weight, rng.randint(0, scale), rng.randint(0, scale)])
    tolerance = rng.choice([1.0, 1.1, 1.2, 1.5, 3.0])
    too_few = bool(i % 2)
    rows.append(
        {"cells": cells, "tolerance": tolerance, "tooFew": too_few, "lnE": ln_e(cells, tolerance, too_few)}
    )
write("eprocess.json", rows)

# --- The split, by savvi.

rows = []
for weight in [10_000, 25_000, 50_000, 75_000]:
    w = weight / 100_000
    for control, candidate in [(0, 0), (20, 70), (70, 20), (900, 100), (1_000, 0), (8_800, 1_200), (250_000, 750_000)]:
        test = Multinomial(1e-4, np.array([w, 1 - w]), k=100)
        with np.errstate(over="ignore"):
            test.update(np.array([candidate, control]))
        if np.isfinite(test.odds) and test.odds > 0:
            rows.append({"weight": weight, "control": control, "candidate": candidate, "lnE": float(np.log(test.odds))})
write("split.json", rows)

# --- Special functions, by scipy.

xs = [1e-3, 0.1, 0.5, 1.0, 1.5, 2.0, 3.7, 10.0, 14.99, 15.0, 100.5, 1e4, 1e7, 1e10]
write(
    "special.json",
    {
        "lnGamma": [[x, float(scipy.special.gammaln(x))] for x in xs],
        "lnBeta": [[a, b, float(scipy.special.betaln(a, b))] for a in xs for b in xs],
        "gammaP": [
            [a, x, float(scipy.special.gammainc(a, x))]
            for a in [0.5, 1.0, 4.5, 25.0]
            for x in [0.0, 1e-6, 0.3, 1.0, 4.0, 20.0, 40.0, 200.0]
        ],
        "normalCdf": [[z, float(scipy.stats.norm.cdf(z))] for z in [-9.0, -3.0, -1.0, -0.1, 0.0, 0.5, 1.96, 4.0, 9.0]],
        "chiSquaredQuantile": [
            [p, k, float(scipy.stats.chi2.ppf(p, k))] for p in [0.01, 0.5, 0.95, 0.999] for k in [1, 2, 9, 19, 49]
        ],
    },
)

# --- PSI.

rows = []
for _ in range(20):
    bins = rng.randint(2, 20)
    control = [rng.randint(0, 400) for _ in range(bins)]
    candidate = [rng.randint(0, 100) for _ in range(bins)]
    q = np.maximum(control, 0.5) / sum(control)
    p = np.maximum(candidate, 0.5) / sum(candidate)
    rows.append(
        {
            "control": control,
            "candidate": candidate,
            "psi": float(np.sum((p - q) * np.log(p / q))),
            "noise": float((1 / sum(control) + 1 / sum(candidate)) * scipy.stats.chi2.ppf(0.999, bins - 1)),
        }
    )
write("psi.json", rows)

# --- The one-sample watch.


def limit(failures, requests, level):
    seen = failures / requests

    def divergence(p):
        return requests * float(scipy.special.rel_entr(seen, p) + scipy.special.rel_entr(1 - seen, 1 - p))

    return scipy.optimize.brentq(lambda p: divergence(p) + np.log(level), seen + 1e-15, 1 - 1e-15, xtol=1e-15)


rows = []
for failures, requests in [(0, 100), (1, 100), (10, 1_000), (200, 20_000), (900, 1_000)]:
    for level in [0.025, 1e-4]:
        upper = limit(failures, requests, level)
        clopper_pearson = float(scipy.stats.beta.ppf(1 - level, failures + 1, requests - failures))
        assert upper >= clopper_pearson * (1 - 1e-9)  # equal where nothing failed
        for candidate in [(0, 100), (5, 100), (60, 1_000)]:
            null = mpmath.mpf(upper) * mpmath.mpf("1.05")
            e = None
            if null < 1:
                total = mpmath.mpf(0)
                for g in grid():
                    p = null * g / (1 + null * (g - 1))
                    total += (p / null) ** candidate[0] * ((1 - p) / (1 - null)) ** (candidate[1] - candidate[0])
                e = float(mpmath.log(total / 40 / 2))
            rows.append(
                {
                    "failures": failures,
                    "requests": requests,
                    "level": level,
                    "limit": upper,
                    "clopperPearson": clopper_pearson,
                    "candidate": candidate,
                    "tolerance": 1.05,
                    "lnE": e,
                }
            )
write("onesample.json", rows)

# --- The simulator's generator (Blackman and Vigna; SplitMix64 of Steele, Lea and Flood).


def xoshiro(seed, n):
    state, x = [], seed
    for _ in range(4):
        x = (x + 0x9E3779B97F4A7C15) & MASK
        z = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        state.append(z ^ (z >> 31))
    out = []
    for _ in range(n):
        out.append((rotl((state[0] + state[3]) & MASK, 23) + state[0]) & MASK)
        t = (state[1] << 17) & MASK
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= t
        state[3] = rotl(state[3], 45)
    return out


print("xoshiro256++(42):", xoshiro(42, 3))
