"""Triton kernel of `effc::quantized_linear` for 16-bit and float32 inputs, 8 to 2 bit weights.

One program makes a tile of the output. It reads the packed codes as they lie in memory, spreads
bytes and applies scales in registers, and multiplies on tensor cores with float32 sums. Up to
16 rows use one tile shape, so a row's result does not depend on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from effc.kernels.registry import Support

INPUT_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class TileConfig:
    """Tile shape [block_m, block_n] of the output, step along `in`, and launch parameters."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


def tile_config(rows: int, out_features: int, dtype: torch.dtype) -> TileConfig:
    """The tile for a product [rows, in] x [in, out_features].

    Decoding (up to 16 rows) is bound by reading the weight: narrow tiles make enough programs to
    fill a device, long steps make wide reads. More rows are bound by arithmetic: square tiles
    reuse both operands. float32 products run outside the tensor cores and hold more registers.
    """
    if dtype == torch.float32:
        return TileConfig(16, 16, 64, 4, 2) if rows <= 16 else TileConfig(32, 32, 32, 4, 2)
    if rows <= 16:
        return TileConfig(16, 16 if out_features < 4096 else 32, 128, 4, 3)
    return TileConfig(64, 64, 64, 4, 3)


def supports(arguments: dict[str, object], target: object) -> Support:
    """Whether the kernel can serve a call of the operator with these arguments."""
    if arguments["activations"] != "source":
        return Support(False, f"activations = {arguments['activations']!r}; it has 'source' only")
    x = arguments["x"]
    if not isinstance(x, torch.Tensor) or x.dtype not in INPUT_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in INPUT_DTYPES)
        return Support(False, f"x is {getattr(x, 'dtype', x)}; it takes {names}")
    return Support(True)


def quantized_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    bias: torch.Tensor | None,
    bits: int,
    group: int,
    in_features: int,
    activations: str,
) -> torch.Tensor:
    """Serve `effc::quantized_linear`; arguments and result as in its reference.

    `supports` must have agreed to the call.
    """
    rows = x.reshape(-1, in_features)
    out_features, groups = scale.shape
    result = torch.empty(rows.shape[0], out_features, dtype=x.dtype, device=x.device)
    tile = tile_config(rows.shape[0], out_features, x.dtype)
    grid = (triton.cdiv(out_features, tile.block_n), triton.cdiv(rows.shape[0], tile.block_m))
    if result.numel():
        _quantized_linear_kernel[grid](
            rows,
            codes.contiguous(),
            scale.contiguous(),
            None if zero is None else zero.contiguous(),
            bias,
            result,
            rows.shape[0],
            out_features,
            in_features,
            codes.shape[-1],
            groups,
            0 if zero is None else zero.shape[-1],
            rows.stride(0),
            rows.stride(1),
            **constants(bits, group, groups, tile),
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            enable_fp_fusion=True,
        )
    return result.reshape(*x.shape[:-1], out_features)


def constants(bits: int, group: int, groups: int, tile: TileConfig) -> dict[str, int]:
    """The kernel's compile-time arguments for `groups` groups of `group` columns per row."""
    shared_step = groups > 1 and group < tile.block_k
    return {
        "BITS": bits,
        "GROUP": group,
        "STEP_GROUPS": tile.block_k // group if shared_step else 1,
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
    }


@triton.jit
def _spread(packed, BITS: tl.constexpr):
    """Codes [rows, bytes, ..] of bytes [rows, bytes], those of one byte in a row; BITS divides 8.

    Each `join` adds a dimension of two, the outermost of which tells the nibbles apart.
    """
    if BITS == 8:
        codes = packed
    elif BITS == 4:
        codes = tl.join(packed, packed >> 4)
    elif BITS == 2:
        codes = tl.join(tl.join(packed, packed >> 4), tl.join(packed >> 2, packed >> 6))
    else:
        even = tl.join(tl.join(packed, packed >> 4), tl.join(packed >> 2, packed >> 6))
        codes = tl.join(even, even >> 1)
    return codes & ((1 << BITS) - 1)


@triton.jit
def _load_part(row_ptr, row_mask, k0, row_bytes, BITS: tl.constexpr, BLOCK_K: tl.constexpr):
    """Codes [rows, BLOCK_K] from column k0 on of a part of the row; BITS divides 8."""
    offsets = (k0 * BITS // 8 + tl.arange(0, BLOCK_K * BITS // 8))[None, :]
    packed = tl.load(row_ptr + offsets, mask=row_mask & (offsets < row_bytes), other=0)
    return _spread(packed, BITS).reshape(packed.shape[0], BLOCK_K)


@triton.jit
def _load_codes(row_ptr, row_mask, k0, row_bytes, BITS: tl.constexpr, BLOCK_K: tl.constexpr):
    """Codes [rows, BLOCK_K] from column k0 on, uint8; `row_ptr` [rows, 1] points at the rows."""
    if BITS == 3:
        low_bytes = row_bytes * 2 // 3
        codes = _load_part(row_ptr, row_mask, k0, low_bytes, 2, BLOCK_K)
        codes |= _load_part(row_ptr + low_bytes, row_mask, k0, low_bytes // 2, 1, BLOCK_K) << 2
    else:
        codes = _load_part(row_ptr, row_mask, k0, row_bytes, BITS, BLOCK_K)
    return codes


@triton.jit
def _code_at(row_ptr, mask, index, BITS: tl.constexpr):
    """The codes at some columns, uint8; BITS divides 8."""
    packed = tl.load(row_ptr + index * BITS // 8, mask=mask, other=0)
    return (packed >> (index * BITS % 8).to(tl.uint8)) & ((1 << BITS) - 1)


@triton.jit
def _load_zero(row_ptr, row_mask, group, groups, row_bytes, BITS: tl.constexpr):
    """Zero points [rows, len(group)], uint8; `row_ptr` [rows, 1], `group` [1, len(group)]."""
    mask = row_mask & (group < groups)
    if BITS == 3:
        zero = _code_at(row_ptr, mask, group, 2)
        zero |= _code_at(row_ptr + row_bytes * 2 // 3, mask, group, 1) << 2
    else:
        zero = _code_at(row_ptr, mask, group, BITS)
    return zero


@triton.jit
def _quantized_linear_kernel(
    x_ptr,
    codes_ptr,
    scale_ptr,
    zero_ptr,
    bias_ptr,
    out_ptr,
    M,
    N,
    K,
    code_bytes,
    groups,
    zero_bytes,
    stride_xm,
    stride_xk,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    STEP_GROUPS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # Offsets reach past 2^31 for a long prompt times a large vocabulary.
    m = (tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)[:, None]
    n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)[:, None]
    m_mask, n_mask = m < M, n < N
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k0 in range(0, K, BLOCK_K):
        k = (k0 + tl.arange(0, BLOCK_K))[None, :]
        x = tl.load(x_ptr + m * stride_xm + k * stride_xk, mask=m_mask & (k < K), other=0.0)
        codes = _load_codes(codes_ptr + n * code_bytes, n_mask, k0, code_bytes, BITS, BLOCK_K)

        group = (k0 // GROUP + tl.arange(0, STEP_GROUPS))[None, :]
        scale_mask = n_mask & (group < groups)
        scale = tl.load(scale_ptr + n * groups + group, mask=scale_mask, other=0.0)
        if zero_ptr is None:
            zero = tl.full((BLOCK_N, STEP_GROUPS), 1 << (BITS - 1), tl.float32)
        else:
            zero_row = zero_ptr + n * zero_bytes
            zero = _load_zero(zero_row, n_mask, group, groups, zero_bytes, BITS)

        values = codes.to(tl.float32).reshape(BLOCK_N, STEP_GROUPS, BLOCK_K // STEP_GROUPS)
        values = (values - zero.to(tl.float32)[:, :, None]) * scale.to(tl.float32)[:, :, None]
        weight = values.reshape(BLOCK_N, BLOCK_K).to(x.dtype)
        sums = tl.dot(x, tl.trans(weight), sums, input_precision="ieee")

    n_out = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    if bias_ptr is not None:
        sums += tl.load(bias_ptr + n_out, mask=n_out < N, other=0.0).to(tl.float32)
    out_mask = m_mask & (n_out < N)
    tl.store(out_ptr + m * N + n_out, sums.to(out_ptr.dtype.element_ty), mask=out_mask)
