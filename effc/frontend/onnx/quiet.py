"""What torch says about shape functions that refuse: here that is an answer, not an accident."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("torch._subclasses.fake_tensor")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from logging the refusals of shape functions."""
    before, _LOG.disabled = _LOG.disabled, True
    try:
        yield
    finally:
        _LOG.disabled = before
