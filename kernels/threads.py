"""How many threads an operator's small steps use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's operators on the calling thread.

    For work in blocks so small that the threads of an operator mostly wait for one another: on an
    idle machine a second thread gains nothing, on a busy one each wait costs a time slice, up to
    forty times the work itself.
    """
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
