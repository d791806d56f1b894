"""Importing this module registers every `effc::` operator with PyTorch.

An exported `.pt2` that contains such operators loads after `import effc.ops`.
"""

import effc.kernels.attention.op
import effc.kernels.gated_activation.op
import effc.kernels.grouped_linear.op
import effc.kernels.paged.op
import effc.kernels.quantized_embedding.op
import effc.kernels.quantized_grouped_linear.op
import effc.kernels.quantized_linear.op
import effc.kernels.rms_norm.op
import effc.kernels.rope.op  # noqa: F401
