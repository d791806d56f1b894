"""What became of a case: it passes, is refused, gives a wrong answer, or crashes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch

import effc
from effc.diagnostics import EffcError
from tests.conformance.corpus import Case, DataSet

PASS, REFUSED, WRONG, CRASH = CATEGORIES = ("pass", "refused", "wrong", "crash")

# An operator, an element type or a domain that has no translation; all else is no refusal.
_REFUSALS = ("E0302", "E0307")

# Types that numpy has from ml_dtypes and torch has by itself, and numpy types of their width.
_FOREIGN: dict[type, tuple[torch.dtype, type]] = {
    ml_dtypes.bfloat16: (torch.bfloat16, np.int16),
    ml_dtypes.float8_e4m3fn: (torch.float8_e4m3fn, np.uint8),
    ml_dtypes.float8_e4m3fnuz: (torch.float8_e4m3fnuz, np.uint8),
    ml_dtypes.float8_e5m2: (torch.float8_e5m2, np.uint8),
    ml_dtypes.float8_e5m2fnuz: (torch.float8_e5m2fnuz, np.uint8),
}

_BFLOAT16_RTOL = 2.0**-6  # two units in the last place, as onnx's own runner allows


@dataclass(frozen=True)
class Outcome:
    """The result of one case.

    Attributes:
        case: which one.
        category: of `CATEGORIES`.
        reason: the first line of what went wrong; empty when it passes.
    """

    case: Case
    category: str
    reason: str = ""


def run(case: Case) -> Outcome:
    """Import a case's model and compare its results on every data set."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            program = effc.import_onnx(case.model)
        except EffcError as error:
            category = REFUSED if error.code in _REFUSALS else WRONG
            return Outcome(case, category, _first_line(error))
        except Exception as error:  # a harness reports whatever comes
            return Outcome(case, CRASH, f"import: {_first_line(error)}")
        try:
            reasons = [_differences(case, program, data) for data in case.data_sets]
        except EffcError as error:
            return Outcome(case, WRONG, _first_line(error))
        except Exception as error:
            return Outcome(case, CRASH, f"run: {_first_line(error)}")
    reason = next(filter(None, reasons), "")
    return Outcome(case, WRONG if reason else PASS, reason)


def _differences(case: Case, program: Any, data: DataSet) -> str:
    given, wanted = data
    found = program(*(to_program(value) for value in given))
    if len(found) != len(wanted):
        return f"{len(found)} results instead of {len(wanted)}"
    pairs = enumerate(zip(found, wanted, strict=True))
    texts = (compare(f, w, f"output {i}", case.rtol, case.atol) for i, (f, w) in pairs)
    return next(filter(None, texts), "")


def to_program(value: Any) -> Any:
    """A value of the corpus as programs take it: torch tensors wherever torch has the type."""
    if isinstance(value, list):
        return [to_program(item) for item in value]
    if value is None or value.dtype == object:
        return value
    if value.dtype.type in _FOREIGN:
        dtype, bits = _FOREIGN[value.dtype.type]
        return torch.from_numpy(value.view(bits).copy()).view(dtype)
    # Integers and floats of less than a byte are types of ml_dtypes that torch lacks.
    return torch.from_numpy(value.copy()) if value.dtype.isbuiltin == 1 else value


def to_numpy(value: Any) -> Any:
    """A result of a program as an array."""
    if not isinstance(value, torch.Tensor):
        return value
    for kind, (dtype, bits) in _FOREIGN.items():
        if value.dtype == dtype:
            plain = torch.int16 if bits is np.int16 else torch.uint8
            return value.contiguous().view(plain).numpy().view(kind)
    return value.numpy()


def compare(found: Any, wanted: Any, place: str, rtol: float, atol: float) -> str:
    """How two values differ, an empty text when they do not."""
    if wanted is None or found is None:
        return "" if wanted is found else f"{place}: one of them is absent"
    if isinstance(wanted, list):
        return _compare_lists(found, wanted, place, rtol, atol)
    found = to_numpy(found)
    if not isinstance(found, np.ndarray):
        return f"{place}: a {type(found).__name__} instead of a tensor"
    if found.shape != wanted.shape:
        return f"{place}: shape {list(found.shape)} instead of {list(wanted.shape)}"
    if found.dtype != wanted.dtype:
        return f"{place}: {found.dtype} instead of {wanted.dtype}"
    if wanted.dtype == ml_dtypes.bfloat16:
        rtol = max(rtol, _BFLOAT16_RTOL)
    return _compare_values(found, wanted, place, rtol, atol)


def _compare_lists(found: Any, wanted: Sequence[Any], place: str, rtol: float, atol: float) -> str:
    if not isinstance(found, list) or len(found) != len(wanted):
        length = len(found) if isinstance(found, list) else type(found).__name__
        return f"{place}: {length} elements instead of {len(wanted)}"
    pairs = enumerate(zip(found, wanted, strict=True))
    texts = (compare(f, w, f"{place}[{i}]", rtol, atol) for i, (f, w) in pairs)
    return next(filter(None, texts), "")


def _compare_values(found: Any, wanted: Any, place: str, rtol: float, atol: float) -> str:
    if wanted.dtype.kind in "biuSO":
        differs = found != wanted
    else:
        wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
        with np.errstate(invalid="ignore"):  # ml_dtypes says so of NaN
            found, wanted = found.astype(wide), wanted.astype(wide)
        differs = ~np.isclose(found, wanted, rtol=rtol, atol=atol, equal_nan=True)
    if not differs.any():
        return ""
    first = tuple(int(i) for i in np.argwhere(differs)[0])
    values = f"{found[first]} instead of {wanted[first]} at {list(first)}"
    return f"{place}: {int(differs.sum())} of {differs.size} values differ: {values}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines() or [""]
    name = "" if isinstance(error, EffcError) else f"{type(error).__name__}: "
    return f"{name}{text[0]}"[:240]
