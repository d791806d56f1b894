"""Attention and rotary embeddings, against a loop over queries and keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontend.onnx.ops.oracles import attributes
from tests.frontend.onnx.ops.texts import calls, numbers, run

B, H, D = 2, 4, 8


def expected(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    offsets: list[int],
    lengths: list[int],
    options: dict[str, Any],
) -> np.ndarray:
    """Attention as the standard words it: one query after another, in double precision."""
    out = np.zeros((*q.shape[:3], v.shape[3]))
    group = q.shape[1] // k.shape[1]
    left, right = options.get("left_window_size", -1), options.get("right_window_size", -1)
    for b, h, t in np.ndindex(*q.shape[:3]):
        place, found = t + offsets[b], {}
        for s in range(k.shape[2]):
            late = options.get("is_causal") and s > place
            far = (left >= 0 and s < place - left) or (right >= 0 and s > place + right)
            if late or far or s >= lengths[b]:
                continue
            score = float(q[b, h, t] @ k[b, h // group, s]) * options.get("scale", D**-0.5)
            cap = options.get("softcap")
            score = cap * np.tanh(score / cap) if cap else score
            if mask is not None and mask.dtype == bool:
                if not mask[b, h, t, s]:
                    continue
            elif mask is not None:
                score += float(mask[b, h, t, s])
            found[s] = score
        if found:
            weights = np.exp(np.array(list(found.values())) - max(found.values()))
            out[b, h, t] = weights / weights.sum() @ v[b, h // group, list(found)]
    return out


FORMS: dict[str, dict[str, Any]] = {
    "all keys": {},
    "causal": {"is_causal": 1},
    "scaled": {"scale": 0.3, "is_causal": 1},
    "capped": {"softcap": 1.5, "is_causal": 1},
}
WINDOWS: dict[str, dict[str, Any]] = {
    "left": {"left_window_size": 2},
    "left and causal": {"left_window_size": 1, "is_causal": 1},
    "right": {"right_window_size": 1},
    "both": {"left_window_size": 1, "right_window_size": 1},
    "right is now": {"left_window_size": 2, "right_window_size": 0},
}


def tensors(t: int, s: int, kv_heads: int = 2) -> list[np.ndarray]:
    """Queries, keys and values."""
    return [
        numbers(B, H, t, D),
        numbers(B, kv_heads, s, D, seed=1),
        numbers(B, kv_heads, s, D, seed=2),
    ]


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal up to float32 rounding."""
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


QKV = "float[B,4,T,8] q, float[B,2,S,8] k, float[B,2,S,8] v"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_one_operator_for_self_attention_of_any_length(form: str, kv_heads: int) -> None:
    shapes = QKV.replace("S", "T").replace("B,2", f"B,{kv_heads}")
    text = f"m ({shapes}) => (float[B,4,T,8] y)"
    text += f" {{ y = Attention {attributes(FORMS[form])} (q, k, v) }}"
    assert "effc.attention" in calls(text, 23)[0] and len(calls(text, 23)) == 2
    for t in (1, 5):
        q, k, v = tensors(t, t, kv_heads)
        close(run(text, q, k, v, opset=23)[0], expected(q, k, v, None, [0, 0], [t, t], FORMS[form]))


@pytest.mark.parametrize("form", FORMS)
def test_flat_heads_and_a_past(form: str) -> None:
    text = "m (float[B,T,32] q, float[B,T,16] k, float[B,T,16] v, float[B,2,P,8] a, "
    text += "float[B,2,P,8] b) => (float[B,T,32] y, float[B,2,S,8] c, float[B,2,S,8] d) { y, c, d"
    heads = {**FORMS[form], "q_num_heads": 4, "kv_num_heads": 2}
    text += f" = Attention {attributes(heads)} (q, k, v, , a, b) }}"
    assert sum("effc.attention" in line for line in calls(text, 23)) == 1
    assert not any("softmax" in line for line in calls(text, 23))
    for t, past in ((3, 4), (1, 6), (4, 0)):
        q, k, v = tensors(t, t + past)
        flat = [np.moveaxis(x, 1, 2).reshape(B, t, -1) for x in (q, k[:, :, past:], v[:, :, past:])]
        y, keys, values = run(text, *flat, k[:, :, :past], v[:, :, :past], opset=23)
        wanted = expected(q, k, v, None, [past] * 2, [t + past] * 2, FORMS[form])
        close(y, np.moveaxis(wanted, 1, 2).reshape(B, t, -1))
        np.testing.assert_array_equal(keys, k)
        np.testing.assert_array_equal(values, v)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("shape", [(3, 5), (1, 3, 5), (4, 1, 5), (2, 1, 3, 5), (2, 4, 3, 5)])
def test_masks_broadcast(causal: int, kind: str, shape: tuple[int, ...]) -> None:
    sizes = ",".join(map(str, shape))
    text = f"m (float[B,4,3,8] q, float[B,2,5,8] k, float[B,2,5,8] v, {kind}[{sizes}] m) "
    text += f"=> (float[B,4,3,8] y) {{ y = Attention <is_causal = {causal}> (q, k, v, m) }}"
    q, k, v = tensors(3, 5)
    mask = numbers(*shape, seed=3)
    mask = mask > -0.3 if kind == "bool" else mask
    wanted = expected(
        q, k, v, np.broadcast_to(mask, (B, H, 3, 5)), [0, 0], [5, 5], {"is_causal": causal}
    )
    close(run(text, q, k, v, mask, opset=23)[0], wanted)


@pytest.mark.parametrize("form", WINDOWS)
@pytest.mark.parametrize("sizes", [(4, 4), (3, 6), (6, 3)])
def test_windows(form: str, sizes: tuple[int, int]) -> None:
    text = f"m ({QKV}) => (float[B,4,T,8] y)"
    text += f" {{ y = Attention {attributes(WINDOWS[form])} (q, k, v) }}"
    q, k, v = tensors(*sizes)
    wanted = expected(q, k, v, None, [0, 0], [sizes[1]] * 2, WINDOWS[form])
    close(run(text, q, k, v, opset=25)[0], wanted)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=2),
    causal=st.integers(0, 1),
    left=st.integers(-1, 2),
    short=st.booleans(),
)
def test_keys_beyond_the_length_are_not_there(
    lengths: list[int], causal: int, left: int, short: bool
) -> None:
    """Queries are the last of the keys that count; a mask may end with the longest of them."""
    options = {"is_causal": causal, "left_window_size": left}
    text = "m (float[B,4,T,8] q, float[B,2,S,8] k, float[B,2,S,8] v, float[T,M] m, int64[B] n) "
    text += f"=> (float[B,4,T,8] y) {{ y = Attention {attributes(options)} (q, k, v, m, , , n) }}"
    q, k, v = tensors(3, 6)
    mask = numbers(3, max(lengths) if short else 6, seed=4)
    wide = np.pad(mask, ((0, 0), (0, 6 - mask.shape[1])))
    wanted = expected(
        q, k, v, np.broadcast_to(wide, (B, H, 3, 6)), [n - 3 for n in lengths], lengths, options
    )
    close(run(text, q, k, v, mask, np.array(lengths), opset=25)[0], wanted)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_scores_are_those_of_the_stage_asked_for(mode: int) -> None:
    text = "m (float[B,4,T,8] q, float[B,2,S,8] k, float[B,2,S,8] v, float[T,S] m) => "
    text += "(float[B,4,T,8] y, float[B,4,T,S] w) { y, , , w = Attention "
    text += f"<qk_matmul_output_mode = {mode}, softcap = 2.0> (q, k, v, m) }}"
    q, k, v = tensors(3, 5)
    mask = numbers(3, 5, seed=3)
    y, found = run(text, q, k, v, mask, opset=23)
    stages = [np.einsum("bhtd,bhsd->bhts", q, k.repeat(2, 1)) * D**-0.5]
    stages.append(2 * np.tanh(stages[0] / 2))
    stages.append(stages[1] + mask)
    powers = np.exp(stages[2] - stages[2].max(-1, keepdims=True))
    stages.append(powers / powers.sum(-1, keepdims=True))
    close(found, stages[mode])
    close(y, stages[3] @ v.repeat(2, 1))


def test_a_query_that_sees_nothing_gives_zeros_in_both_forms() -> None:
    q, k, v = tensors(2, 3)
    mask = np.array([[True, False, True], [False, False, False]])
    for extra in ("", ", , , w"):
        text = "m (float[B,4,2,8] q, float[B,2,3,8] k, float[B,2,3,8] v, bool[2,3] m) => "
        text += f"(float[B,4,2,8] y) {{ y{extra} = Attention (q, k, v, m) }}"
        (y,) = run(text, q, k, v, mask, opset=23)
        assert not y[:, :, 1].any() and y[:, :, 0].all()


def test_doubles_stay_doubles() -> None:
    text = f"m ({QKV}) => (double[B,4,T,8] y) {{ y = Attention (q, k, v) }}"
    q, k, v = (x.astype(np.float64) for x in tensors(3, 3))
    (y,) = run(text.replace("float", "double"), q, k, v, opset=23)
    wanted = expected(q, k, v, None, [0, 0], [3, 3], {})
    np.testing.assert_allclose(y, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rotated", [0, 4])
@pytest.mark.parametrize("flat", [False, True])
def test_rotation_is_a_product_of_complex_numbers(
    interleaved: int, rotated: int, flat: bool
) -> None:
    width = rotated or D
    options = {"interleaved": interleaved, "rotary_embedding_dim": rotated}
    options |= {"num_heads": H} if flat else {}
    shape = "B,T,32" if flat else "B,4,T,8"
    half = width // 2
    text = f"m (float[{shape}] x, float[10,{half}] c, float[10,{half}] s, int64[B,T] p) => "
    text += f"(float[{shape}] y) {{ y = RotaryEmbedding {attributes(options)} (x, c, s, p) }}"
    assert sum("effc.rope" in line for line in calls(text, 23)) == 1
    for t in (1, 3):
        x, angles = numbers(B, H, t, D), numbers(10, half, seed=1)
        positions = np.arange(B * t).reshape(B, t) % 10
        turns = np.exp(1j * angles)[positions][:, None]
        a, b = (
            (x[..., 0:width:2], x[..., 1:width:2])
            if interleaved
            else (x[..., :half], x[..., half:width])
        )
        turned = (a + 1j * b) * turns
        parts = (turned.real, turned.imag)
        front = (
            np.stack(parts, -1).reshape(B, H, t, width)
            if interleaved
            else np.concatenate(parts, -1)
        )
        wanted = np.concatenate([front, x[..., width:]], -1)
        given = np.moveaxis(x, 1, 2).reshape(B, t, -1) if flat else x
        (y,) = run(text, given, np.cos(angles), np.sin(angles), positions, opset=23)
        close(y, np.moveaxis(wanted, 1, 2).reshape(B, t, -1) if flat else wanted)
