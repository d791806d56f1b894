"""`effc::attention` against torch's own, also for more queries than keys."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from effc.kernels.attention.op import attention


@pytest.mark.parametrize("new", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_across_sequences(new: int, length: int, masked: bool) -> None:
    make = torch.Generator().manual_seed(new + 10 * length)
    q = torch.randn(2, 4, new, 8, generator=make)
    k, v = (torch.randn(2, 2, length, 8, generator=make) for _ in range(2))
    mask = torch.rand(2, 1, new, length, generator=make) < 0.7 if masked else None
    if mask is not None:
        mask[..., 0] = True  # a query that sees nothing is a matter of taste
    found = attention(q, k, v, mask, False, None, None, 0.3, None, None)
    expected = F.scaled_dot_product_attention(q, k, v, mask, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
