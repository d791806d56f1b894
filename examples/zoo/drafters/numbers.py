"""Tables of numbers, generated from arithmetic and written as Python lists.

A document is a few tables in a row; it is a function of its seed alone. Some kinds have few
tables, so single tables are held out too: no table is both in training and in held-out documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

# Seeds from here on are for evaluation, all below for training.
EVALUATION_SEED = 1_000_000
TABLES = 4
HELD_OUT_SHARE = 0.2

Rng = np.random.Generator
Rows = list[list[int]]
Kind = Callable[[Rng], str]


def document(seed: int) -> str:
    """Write the document of one seed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return "\n".join(table(rng, seed >= EVALUATION_SEED) for _ in range(TABLES))


def table(rng: Rng, held_out: bool) -> str:
    """Draw a kind, then one of its tables that belongs to the split."""
    kind = TABLE_KINDS[int(rng.integers(len(TABLE_KINDS)))]
    while is_held_out(text := f"{kind.__name__.strip('_')} = {kind(rng)}\n") != held_out:
        pass
    return text


def is_held_out(text: str) -> bool:
    """Say to which split a table belongs; depends on its text alone."""
    head = hashlib.sha256(text.encode()).digest()[:4]
    return int.from_bytes(head, "big") < HELD_OUT_SHARE * 2**32


def _products(rng: Rng) -> str:
    """Multiply: a window of the multiplication table."""
    first, other, width = _draw(rng, 30), _draw(rng, 30), _draw(rng, 8, least=4)
    return _matrix([[a * b for b in _from(other, width)] for a in _from(first, 10)])


def _sums(rng: Rng) -> str:
    """Add: records of two numbers and their sum."""
    pairs = rng.integers(1, 10 ** _draw(rng, 3), (16, 2)).tolist()
    return _matrix([[a, b, a + b] for a, b in pairs])


def _remainders(rng: Rng) -> str:
    """Divide: products modulo a small number, row by row."""
    modulus = _draw(rng, 20, least=3)
    return _matrix([[a * b % modulus for b in range(modulus)] for a in _from(1, 8)])


def _progression(rng: Rng) -> str:
    """Count on by equal steps."""
    step, start = _draw(rng, 50), _draw(rng, 1000)
    return _wrapped(str(start + step * index) for index in range(60))


def _powers(rng: Rng) -> str:
    """Raise the numbers from 1 on to one power."""
    power = _draw(rng, 3, least=2)
    return _wrapped(str(base**power) for base in _from(_draw(rng, 20), 40))


def _recurrence(rng: Rng) -> str:
    """Add the last two, as Fibonacci did, from any two numbers."""
    terms = [_draw(rng, 9), _draw(rng, 9)]
    while len(terms) < 30:
        terms.append(terms[-1] + terms[-2])
    return _wrapped(map(str, terms))


def _codes(rng: Rng) -> str:
    """Map codes to codes in hexadecimal, as tables of encodings do."""
    shift, first = _draw(rng, 64) * 16, _draw(rng, 8) * 16
    rows = (f"    0x{code:02x}: 0x{code + shift:04x},\n" for code in _from(first, 32))
    return "{\n" + "".join(rows) + "}"


def _bits(rng: Rng) -> str:
    """Write consecutive numbers in binary."""
    first = _draw(rng, 200)
    return _matrix([[int(bit) for bit in f"{number:08b}"] for number in _from(first, 16)])


def _samples(rng: Rng) -> str:
    """Draw numbers; nothing but their form can be foreseen."""
    return _wrapped(map(str, rng.integers(0, 10 ** _draw(rng, 3), 60).tolist()))


def _fractions(rng: Rng) -> str:
    """Divide the numbers from 1 on by one number."""
    divisor = _draw(rng, 16, least=2)
    return _wrapped(f"{number / divisor:.3f}" for number in _from(1, 40))


TABLE_KINDS: Sequence[Kind] = (
    _products,
    _sums,
    _remainders,
    _progression,
    _powers,
    _recurrence,
    _codes,
    _bits,
    _samples,
    _fractions,
)


def _draw(rng: Rng, most: int, least: int = 1) -> int:
    return int(rng.integers(least, most + 1))


def _from(first: int, count: int) -> range:
    return range(first, first + count)


def _matrix(rows: Rows) -> str:
    return "[\n" + "".join(f"    {row},\n" for row in rows) + "]"


def _wrapped(items: Iterable[str], width: int = 8) -> str:
    """Write a flat list, some items to a line."""
    every = list(items)
    lines = (every[start : start + width] for start in range(0, len(every), width))
    return "[\n" + "".join(f"    {', '.join(line)},\n" for line in lines) + "]"
