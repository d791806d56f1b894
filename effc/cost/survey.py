"""The cost model of "Efficient Inference for Large Vision-Language Models" (arXiv 2604.05546).

Closed forms over the sizes of a model, for sanity checks and for comparisons before there is a
graph; `effc.cost.graph` counts the operators themselves. Corrected where the paper slips:

- decoding is the *sum* over steps of the time of a step; the paper once multiplies that sum by the
  number of steps again;
- prefill includes the linear layers, which dominate at the lengths in question; the paper's
  FLOPs_attn leaves them out;
- the encoder's attention term N^2 D is included;
- the time to the first token is encoding plus prefill; the paper once writes prefill alone.

FLOPs count two per multiply-add, as data sheets do.
"""

from __future__ import annotations

from dataclasses import dataclass

from effc.cost.machine import Machine


@dataclass(frozen=True)
class Decoder:
    """The sizes of a decoder.

    Attributes:
        layers: L.
        width: hidden width d.
        ffn_width: m.
        kv_ratio: key/value heads over query heads.
        gated: whether the feed-forward layer has three matrices instead of two.
        bytes_per_element: of weights and cache.
    """

    layers: int
    width: int
    ffn_width: int
    kv_ratio: float = 1.0
    gated: bool = True
    bytes_per_element: float = 2.0

    @property
    def weight_bytes(self) -> float:
        """Bytes of the layers' matrices: 2 d^2 (1 + r) for attention, 3 d m (or 2 d m)."""
        attention = 2 * self.width**2 * (1 + self.kv_ratio)
        matrices = 3 if self.gated else 2
        feed_forward = matrices * self.width * self.ffn_width
        return self.layers * (attention + feed_forward) * self.bytes_per_element

    def kv_bytes(self, tokens: int) -> float:
        """|KV| = 2 L n d r P: keys and values of `tokens` tokens."""
        per_layer = 2 * tokens * self.width * self.kv_ratio * self.bytes_per_element
        return self.layers * per_layer

    def prefill_macs(self, tokens: int) -> float:
        """Multiply-adds of a prefill: per layer 4 n d^2 + 2 n^2 d + 3 n d m (2 n d m ungated)."""
        return self.layers * layer_macs(tokens, self.width, self.ffn_width, gated=self.gated)

    def prefill_flops(self, tokens: int) -> float:
        """Twice the multiply-adds."""
        return 2 * self.prefill_macs(tokens)

    def decode_flops(self, held: int) -> float:
        """FLOPs of one token over a cache of `held` tokens, its own included."""
        weights = 2 * self.weight_bytes / self.bytes_per_element
        attention = 4 * self.layers * held * self.width
        return weights + attention


def layer_macs(tokens: int, width: int, ffn_width: int, *, gated: bool = True) -> int:
    """Multiply-adds of one layer over `tokens` tokens, every key seen by every query."""
    matrices = 3 if gated else 2
    linear = 4 * tokens * width**2 + matrices * tokens * width * ffn_width
    return linear + 2 * tokens**2 * width


def encoder_flops(patches: int, width: int, ffn_width: int, layers: int) -> int:
    """FLOPs of an encoder over one frame, its attention among patches included."""
    return 2 * layers * layer_macs(patches, width, ffn_width, gated=False)


def encode_seconds(flops: float, machine: Machine) -> float:
    """Encoding is bound by arithmetic."""
    return flops / machine.peak_flops


def prefill_seconds(decoder: Decoder, tokens: int, machine: Machine) -> float:
    """Arithmetic, or writing the cache and reading the weights, whichever takes longer."""
    moved = decoder.weight_bytes + decoder.kv_bytes(tokens)
    return max(decoder.prefill_flops(tokens) / machine.peak_flops, moved / machine.bandwidth)


def step_seconds(decoder: Decoder, held: int, machine: Machine) -> float:
    """One decoded token: weights and cache are read once (time per output token)."""
    return (decoder.weight_bytes + decoder.kv_bytes(held)) / machine.bandwidth


def decode_seconds(decoder: Decoder, prompt: int, new_tokens: int, machine: Machine) -> float:
    """The sum over all steps; step i reads a cache of `prompt + i` tokens."""
    steps = range(1, new_tokens + 1)
    return sum(step_seconds(decoder, prompt + i, machine) for i in steps)


def first_token_seconds(encode: float, prefill: float) -> float:
    """Time to the first token."""
    return encode + prefill


def total_seconds(first_token: float, decode: float) -> float:
    """The whole answer; `decode` is already the sum over its steps."""
    return first_token + decode


def tensor_parallel(machine: Machine, devices: int) -> Machine:
    """The same model over several devices: their ridge, hence what binds it, stays the same."""
    return Machine(
        f"{devices} x {machine.name}",
        devices * machine.peak_flops,
        devices * machine.bandwidth,
        devices * machine.memory,
        machine.source,
    )
