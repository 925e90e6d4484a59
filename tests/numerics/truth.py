"""Writes truth.safetensors: values of functions at 40 digits, rounded once to f64, by mpmath.

    python tests/numerics/truth.py

For each function `name.x` are arguments that f32 can hold, `name.y` the values. The numbers are the same in every run.
"""

import pathlib
import random

import mpmath
import numpy
from safetensors.numpy import save_file

mpmath.mp.dps = 40
mp = mpmath.mp

FEW, MANY = 200, 800
TAU = 2 * mp.pi


def sinc(x):
    return mp.mpf(1) if x == 0 else mp.sinpi(x) / (mp.pi * x)


def log_abs_gamma(x):
    return mp.re(mp.loggamma(x))


def erfinv(x):
    # mpmath's own loses digits near 1: Newton's method on erfc, which keeps them.
    y = mp.erfinv(x)
    for _ in range(3):
        rest = mp.erfc(y) - (1 - x) if x > 0 else (1 + x) - mp.erfc(-y)
        y += rest * mp.sqrt(mp.pi) / 2 * mp.exp(y * y)
    return y


# Function, domain, points.
FUNCTIONS = {
    "reciprocal": (lambda x: 1 / x, "all", FEW),
    "sqrt": (mp.sqrt, "positive", FEW),
    "rsqrt": (lambda x: 1 / mp.sqrt(x), "positive", FEW),
    "exp": (mp.exp, (-87, 88), FEW),
    "expm1": (mp.expm1, (-87, 88), FEW),
    "exp2": (lambda x: mp.power(2, x), (-126, 127), FEW),
    "log": (mp.log, "positive", FEW),
    "log1p": (mp.log1p, (-0.9999999, 1e38), FEW),
    "log2": (lambda x: mp.log(x, 2), "positive", FEW),
    "log10": (mp.log10, "positive", FEW),
    "sin": (mp.sin, "all", FEW),
    "cos": (mp.cos, "all", FEW),
    "tan": (mp.tan, "all", FEW),
    "asin": (mp.asin, (-1, 1), FEW),
    "acos": (mp.acos, (-1, 1), FEW),
    "atan": (mp.atan, "all", FEW),
    "sinh": (mp.sinh, (-88, 88), FEW),
    "cosh": (mp.cosh, (-88, 88), FEW),
    "tanh": (mp.tanh, (-20, 20), FEW),
    "asinh": (mp.asinh, "all", FEW),
    "acosh": (mp.acosh, (1, 1e38), FEW),
    "atanh": (mp.atanh, (-0.9999999, 0.9999999), FEW),
    "sigmoid": (lambda x: 1 / (1 + mp.exp(-x)), (-87, 40), FEW),
    "logsigmoid": (lambda x: -mp.log1p(mp.exp(-x)), (-1e6, 80), FEW),
    "silu": (lambda x: x / (1 + mp.exp(-x)), (-80, 1e6), FEW),
    "gelu": (lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2, (-12, 1e6), FEW),
    "erf": (mp.erf, (-6, 6), FEW),
    "erfc": (mp.erfc, (-6, 9), FEW),
    "erfinv": (erfinv, (-0.99999994, 0.99999994), MANY),
    "lgamma": (log_abs_gamma, (-1000, 1e36), FEW),
    "digamma": (mp.digamma, (-100, 1e36), MANY),
    "polygamma_1": (lambda x: mp.polygamma(1, x), (-100, 1e18), MANY),
    "i0": (lambda x: mp.besseli(0, x), (-88, 88), MANY),
    "i1": (lambda x: mp.besseli(1, x), (-88, 88), MANY),
    "sinc": (sinc, (-1e5, 1e5), FEW),
}


def arguments(domain, count, chance):
    """Numbers that f32 holds: half of all sizes, half evenly over where most functions turn."""
    low, high = {"all": (-1e38, 1e38), "positive": (1e-37, 1e38)}.get(domain, domain)
    found = set()
    while len(found) < count:
        if len(found) % 2:
            x = chance.uniform(max(low, -30), min(high, 30))
        else:
            x = chance.choice((-1, 1)) * 2.0 ** chance.uniform(-30, 127)
        if chance.random() < 0.1:
            x = float(chance.randint(-40, 40)) / 4
        x = float(numpy.float32(x))
        if low <= x <= high and x != 0:
            found.add(x)
    return sorted(found)


def main():
    tensors = {}
    for name, (function, domain, count) in FUNCTIONS.items():
        chance = random.Random(name)
        pairs = []
        for x in arguments(domain, count, chance):
            try:
                y = float(function(mp.mpf(x)))
            except (ValueError, ZeroDivisionError):
                continue  # A pole.
            if 1e-300 < abs(y) < 1e300 or y == 0:
                pairs.append((x, y))
        tensors[name + ".x"] = numpy.array([x for x, _ in pairs], numpy.float32)
        tensors[name + ".y"] = numpy.array([y for _, y in pairs], numpy.float64)
        print(name, len(pairs))
    save_file(tensors, pathlib.Path(__file__).with_name("truth.safetensors"))


main()
