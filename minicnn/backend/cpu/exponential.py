"""Functions of a vector of float32, of any length, that are made of e^x."""

import math

from minicnn.backend.cpu.jit import helper
from minicnn.backend.cpu.lanes import (
    absolute,
    divide,
    fill_like,
    maximum,
    multiply_add,
    power_of_two,
    round_even,
    where_greater,
)


@helper
def _parts(x):
    """2^n and e^r - 1, where x = n ln 2 + r, for x up to 0: e^x is 2^n (e^r - 1) + 2^n. From -87 down as at -87."""
    x = maximum(x, fill_like(x, -87.0))
    n = round_even(x * fill_like(x, 1.4426950408889634))
    r = multiply_add(n, fill_like(x, -0.693359375), x)  # ln 2 in two parts
    r = multiply_add(n, fill_like(x, 2.12194440e-4), r)
    series = fill_like(x, 1 / 5040)
    series = multiply_add(series, r, fill_like(x, 1 / 720))
    series = multiply_add(series, r, fill_like(x, 1 / 120))
    series = multiply_add(series, r, fill_like(x, 1 / 24))
    series = multiply_add(series, r, fill_like(x, 1 / 6))
    series = multiply_add(series, r, fill_like(x, 1 / 2))
    return power_of_two(n), multiply_add(series * r, r, r)


@helper
def expm1(x):
    """e^x - 1 for x up to 0."""
    power, rest = _parts(x)
    return multiply_add(power, rest, power - fill_like(x, 1.0))


@helper
def normal(x):
    """Distribution function and density of the normal distribution.

    Phi(-|x|) = e^(-x^2 / 2) t Q(t) with t = 1 / (1 + |x| / sqrt 8), and Q a polynomial fitted to a relative error of
    4e-8 for |x| up to 13, where float32 ends.
    """
    t = divide(fill_like(x, 1.0), multiply_add(absolute(x), fill_like(x, 1 / math.sqrt(8)), fill_like(x, 1.0)))
    q = fill_like(x, -0.0294002318)
    q = multiply_add(q, t, fill_like(x, 0.141629302))
    q = multiply_add(q, t, fill_like(x, -0.242229573))
    q = multiply_add(q, t, fill_like(x, 0.137455863))
    q = multiply_add(q, t, fill_like(x, -0.0122180028))
    q = multiply_add(q, t, fill_like(x, 0.100876249))
    q = multiply_add(q, t, fill_like(x, 0.121671138))
    q = multiply_add(q, t, fill_like(x, 0.141171069))
    q = multiply_add(q, t, fill_like(x, 0.141044168))
    bell = exp(x * x * fill_like(x, -0.5))
    tail = bell * t * q
    density = bell * fill_like(x, 1 / math.sqrt(2 * math.pi))
    return where_greater(x, fill_like(x, 0.0), fill_like(x, 1.0) - tail, tail), density


@helper
def exp(x):
    """e^x for x up to 0, and 0 below -87."""
    power, rest = _parts(x)
    return where_greater(fill_like(x, -87.0), x, fill_like(x, 0.0), multiply_add(power, rest, power))
