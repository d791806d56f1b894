"""Parts of vision models as torch exports them, imported and compared with torch."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from torch import nn

import effc.ops  # noqa: F401
from effc.frontend.onnx.importer import import_model
from effc.ir.verify import verify
from effc.runtime.executable import Executable


class ResidualBlock(nn.Module):
    """The bottleneck's shape in small: convolutions, norms, a strided shortcut, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.main = nn.Sequential(
            nn.Conv2d(8, 8, 3, 2, 1, groups=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 1)
        )
        self.shortcut = nn.Conv2d(8, 16, 1, 2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, 5]."""
        x = self.stem(x)
        x = torch.relu(self.main(x) + self.shortcut(x))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class PatchEmbedding(nn.Module):
    """The front of a vision transformer: patches, a class token, positions, a norm, gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.positions = nn.Parameter(torch.randn(1, 17, 12))
        self.norm = nn.LayerNorm(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, 16, 16] -> [N, 17, 12]."""
        rows = self.patches(x).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(x.shape[0], -1, -1), rows], 1) + self.positions
        return nn.functional.gelu(self.norm(rows))


class Pyramid(nn.Module):
    """A coarse map brought to the size of a fine one, as feature pyramids do."""

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """The sum, in the size of the fine map."""
        wide = nn.functional.interpolate(
            coarse, fine.shape[2:], mode="bilinear", align_corners=False
        )
        return wide + nn.functional.avg_pool2d(fine, 3, 1, 1)


def exported(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], open_dims: dict[int, str], dynamo: bool
) -> onnx.ModelProto:
    """The module as an ONNX model with the named sizes open."""
    names = [f"x{i}" for i in range(len(inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = tuple({d: torch.export.Dim.AUTO for d in open_dims} for _ in inputs)
            program = torch.onnx.export(
                module, inputs, dynamo=True, dynamic_shapes=shapes, verbose=False
            )
            return program.model_proto
        buffer = io.BytesIO()
        axes = {
            name: {d: f"{text}{i if d else ''}" for d, text in open_dims.items()}
            for i, name in enumerate(names)
        }
        torch.onnx.export(
            module, inputs, buffer, dynamo=False, input_names=names, dynamic_axes=axes
        )
        return onnx.load_from_string(buffer.getvalue())


# What is built, the shapes of its inputs without the batch, and the sizes that are open.
CASES = {
    "residual block": (ResidualBlock, [(3, 33, 40)], {0: "n", 2: "h", 3: "w"}),
    "patch embedding": (PatchEmbedding, [(3, 16, 16)], {0: "n"}),
    "pyramid": (Pyramid, [(3, 12, 14), (3, 5, 6)], {0: "n"}),
}


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("case", CASES)
def test_module(case: str, dynamo: bool) -> None:
    torch.manual_seed(0)
    build, shapes, open_dims = CASES[case]
    module = build().eval()
    samples = tuple(torch.randn(2, *shape) for shape in shapes)
    proto = exported(module, samples, open_dims, dynamo)
    program = import_model(onnx_ir.from_proto(proto), "test")
    verify(program)
    names = [spec.name for spec in program.stages["forward"].inputs]
    run = Executable(program, device="cpu", kernels="reference")
    grow = 8 if 2 in open_dims else 0
    for batch, more in ((2, 0), (1, 0), (5, grow)):
        given = [torch.randn(batch, c, h + more, w + more) for c, h, w in shapes]
        with torch.no_grad():
            wanted = module(*given)
        (found,) = run("forward", dict(zip(names, given, strict=True))).values()
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)
