"""Operators of detectors: regions of interest, and the choice among boxes."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx import branches
from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.sampling import bilinear, corners
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Size, Unsupported, Value

aten = torch.ops.aten
higher_order = torch.ops.higher_order


def roi_align(
    g: Builder,
    x: Value,
    rois: Value,
    batch_indices: Value,
    *,
    coordinate_transformation_mode: str | None = None,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Value:
    """Regions of x [N, C, H, W] in one size: [R, C, output_height, output_width].

    He et al., "Mask R-CNN", 2017, section 3.

    Args:
        rois: [R, 4] as x1, y1, x2, y2.
        batch_indices: [R] which image each region is of.
    """
    if mode not in ("avg", "max"):
        raise Unsupported(f"the mode {mode}")
    older = "output_half_pixel" if g.opset < 16 else "half_pixel"
    half = (coordinate_transformation_mode or older) == "half_pixel"
    scaled = g.call(aten.mul.Scalar, rois, spatial_scale)
    scaled = g.call(aten.sub.Scalar, scaled, 0.5) if half else scaled
    places, weights, counts = [], [], []
    for i, (out, dim) in enumerate(((output_height, 2), (output_width, 3))):
        start, end = (g.call(aten.select.int, scaled, 1, 1 - i + 2 * j) for j in range(2))
        length = g.call(aten.sub.Tensor, end, start)
        if not half:
            length = g.call(aten.clamp_min.default, length, 1)
        steps = g.call(aten.div.Scalar, length, out)
        at, count, used = _samples(g, start, steps, out, sampling_ratio, mode)
        size = g.size(x, dim)
        inside = g.call(
            aten.logical_and.default,
            g.call(aten.ge.Scalar, at, -1),
            g.call(aten.le.Scalar, at, size),
        )
        last = g.arith(operator.sub, size, 1)
        places.append(g.call(aten.clamp.default, at, 0, last))
        weights.append(g.call(aten.mul.Tensor, inside, used))
        counts.append(count)
    return _pooled(g, x, batch_indices, places, weights, counts, mode)


def _samples(
    g: Builder, start: Value, steps: Value, out: int, ratio: int, mode: str
) -> tuple[Value, Value, Value]:
    """Places along one axis [R, out, samples], how many of a bin count [R], and which [R, 1, S].

    Without a ratio every region has as many samples as elements lie in a bin of it; all regions
    are given as many as the largest has.
    """
    count: Value
    number: Size = ratio
    if ratio:
        count = g.call(aten.full_like.default, steps, ratio)
    elif mode == "max":
        raise Unsupported("the largest of a number of samples that depends on the region")
    else:
        count = g.call(aten.ceil.default, steps)
        most = g.call(aten.amax.default, g.call(aten.constant_pad_nd.default, count, [0, 1], 1))
        number = g.int(g.call(aten.to.dtype, most, torch.int64))
    index = g.call(aten.arange.default, number, dtype=g.dtype(steps))
    column = g.call(aten.unsqueeze.default, count, 1)
    used = g.call(aten.unsqueeze.default, g.call(aten.lt.Tensor, index, column), 1)
    parts = g.call(aten.div.Tensor, g.call(aten.add.Scalar, index, 0.5), column)
    bins = g.call(aten.unsqueeze.default, g.call(aten.arange.default, out), 1)
    inner = g.call(aten.add.Tensor, bins, g.call(aten.unsqueeze.default, parts, 1))
    cube = [-1, 1, 1]
    width, first = (g.call(aten.reshape.default, part, cube) for part in (steps, start))
    at = g.call(aten.add.Tensor, g.call(aten.mul.Tensor, inner, width), first)
    return at, g.call(aten.clamp_min.default, count, 1), used


def _pooled(
    g: Builder,
    x: Value,
    images: Value,
    places: list[Value],
    weights: list[Value],
    counts: list[Value],
    mode: str,
) -> Value:
    """The mean or the largest over the samples of every bin."""
    # [R, bins, samples] as [R, bins, samples, 1, 1] for rows, [R, 1, 1, bins, samples] for columns.
    rows, row_weight = (_spread(g, part, (3, 3)) for part in (places[0], weights[0]))
    columns, column_weight = (_spread(g, part, (1, 1)) for part in (places[1], weights[1]))
    weight = g.call(aten.unsqueeze.default, g.call(aten.mul.Tensor, row_weight, column_weight), -1)
    if mode == "max":
        # The standard takes the largest of the four weighted elements, not of their sums.
        terms = corners(g, x, images, rows, columns)
        best = g.call(aten.amax.default, g.call(aten.stack.default, terms), [0])
        pooled = g.call(aten.amax.default, g.call(aten.mul.Tensor, best, weight), [2, 4])
    else:
        seen = g.call(aten.mul.Tensor, bilinear(g, x, images, rows, columns), weight)
        sums = g.call(aten.sum.dim_IntList, seen, [2, 4])
        each = g.call(aten.reshape.default, g.call(aten.mul.Tensor, *counts), [-1, 1, 1, 1])
        pooled = g.call(aten.div.Tensor, sums, each)
    return g.call(aten.permute.default, pooled, [0, 3, 1, 2])


def _spread(g: Builder, value: Value, dims: tuple[int, int]) -> Value:
    for dim in dims:
        value = g.call(aten.unsqueeze.default, value, dim)
    return value


def non_max_suppression(
    g: Builder,
    boxes: Value,
    scores: Value,
    max_output_boxes_per_class: Value = None,
    iou_threshold: Value = None,
    score_threshold: Value = None,
    *,
    center_point_box: int = 0,
) -> Value:
    """The best boxes of each class that do not overlap: rows of (batch, class, box).

    Every round takes the best box that is left of each class and drops what overlaps it.

    Args:
        boxes: [B, N, 4].
        scores: [B, C, N].
    """
    if max_output_boxes_per_class is None:
        return torch.zeros([0, 3], dtype=torch.int64)
    limit, overlap = (
        torch.tensor(0.0) if value is None else g.call(aten.reshape.default, value, [])
        for value in (max_output_boxes_per_class, iou_threshold)
    )
    left: Value
    if score_threshold is None:
        left = g.call(aten.ones_like.default, scores, dtype=torch.bool)
    else:
        left = g.call(aten.gt.Tensor, scores, score_threshold)
    never = torch.iinfo(torch.int64).max
    taken = g.call(aten.full_like.default, scores, never, dtype=torch.int64)
    corner = _corner_form(g, boxes, center_point_box)
    taken = _rounds(g, corner, scores, left, taken, limit, overlap)
    order = g.call(aten.argsort.stable, taken, stable=True, dim=-1)
    ranks = g.call(aten.gather.default, taken, -1, order)
    found = g.call(aten.nonzero.default, g.call(aten.lt.Scalar, ranks, never))
    columns = [g.call(aten.select.int, found, 1, i) for i in range(3)]
    chosen = g.call(aten.index.Tensor, order, columns)
    return g.call(aten.stack.default, [*columns[:2], chosen], 1)


def _corner_form(g: Builder, boxes: Value, centered: int) -> Value:
    """Boxes as [4, B, N]: the smaller and the larger of both coordinates."""
    a, b, c, d = (g.call(aten.select.int, boxes, -1, i) for i in range(4))
    if centered:
        half = [g.call(aten.div.Scalar, size, 2) for size in (c, d)]
        low = [g.call(aten.sub.Tensor, x, h) for x, h in zip((a, b), half, strict=True)]
        high = [g.call(aten.add.Tensor, x, h) for x, h in zip((a, b), half, strict=True)]
    else:
        pairs = ((a, c), (b, d))
        low = [g.call(aten.minimum.default, *pair) for pair in pairs]
        high = [g.call(aten.maximum.default, *pair) for pair in pairs]
    return g.call(aten.stack.default, [*low, *high])


def _rounds(
    g: Builder,
    boxes: Value,
    scores: Value,
    left: Value,
    taken: Value,
    limit: Value,
    overlap: Value,
) -> Value:
    """`taken` [B, C, N] with the round in which each box was taken."""
    start = [g.node(value) for value in (torch.tensor(0), left, taken)]
    outer = [g.node(value) for value in (boxes, scores, limit, overlap)]
    names = ("round", "left", "taken")
    inner, more = g.branch(), g.branch()
    number, remaining, ranks = inputs = [
        inner.input(name, node.meta) for name, node in zip(names, start, strict=True)
    ]
    given = [inner.own(node) for node in outer]
    result = _one_round(inner, given[0], given[1], number, remaining, ranks, given[3])
    seen = [more.input(name, node.meta) for name, node in zip(names, start, strict=True)]
    any_left = more.call(aten.any.default, seen[1])
    below = more.call(aten.lt.Tensor, seen[0], more.own(outer[2]))
    answer = more.call(aten.logical_and.default, any_left, below)
    captured = branches.operands((inner, more))
    check = branches.finish(more, "more", seen, captured, [answer], predicate=True)
    body = branches.finish(inner, "body", inputs, captured, result)
    fakes = tuple(node.meta.get("val") for node in start)
    loop = g.emit_as(fakes, higher_order.while_loop, check, body, tuple(start), tuple(captured))
    return g.emit_as(fakes[2], operator.getitem, loop, 2)


def _one_round(
    g: Builder,
    boxes: Any,
    scores: Any,
    number: fx.Node,
    left: fx.Node,
    taken: fx.Node,
    overlap: Any,
) -> list[Value]:
    """Take the best of each class, and drop what overlaps it."""
    gone = g.call(aten.logical_not.default, left)
    open_scores = g.call(aten.masked_fill.Scalar, scores, gone, float("-inf"))
    best = g.call(aten.argmax.default, open_scores, -1, True)
    places = g.call(aten.arange.default, g.size(scores, 2))
    here = g.call(aten.logical_and.default, g.call(aten.eq.Tensor, places, best), left)
    ranks = g.call(aten.where.self, here, number, taken)
    # [B, C] boxes that were taken, against all [B, N].
    flat = g.call(aten.unsqueeze.default, g.call(aten.squeeze.dim, best, -1), 0)
    count = [4, *g.shape(scores)[:2]]
    mine = g.call(aten.gather.default, boxes, 2, g.call(aten.expand.default, flat, count))
    near = _overlaps(
        g,
        g.call(aten.unsqueeze.default, mine, -1),
        g.call(aten.unsqueeze.default, boxes, 2),
        overlap,
    )
    dropped = g.call(aten.logical_or.default, near, here)
    kept = g.call(aten.logical_and.default, left, g.call(aten.logical_not.default, dropped))
    return [g.call(aten.add.Scalar, number, 1), kept, ranks]


def _overlaps(g: Builder, a: Value, b: Value, threshold: Value) -> Value:
    """Whether the intersection over the union of boxes [4, ...] is above the threshold."""

    def area(box: list[Value]) -> Value:
        sides = [g.call(aten.sub.Tensor, box[i + 2], box[i]) for i in range(2)]
        return g.call(aten.mul.Tensor, *(g.call(aten.clamp_min.default, s, 0) for s in sides))

    first, second = ([g.call(aten.select.int, box, 0, i) for i in range(4)] for box in (a, b))
    common = [
        g.call(aten.maximum.default if i < 2 else aten.minimum.default, first[i], second[i])
        for i in range(4)
    ]
    shared = area(common)
    total = g.call(aten.sub.Tensor, g.call(aten.add.Tensor, area(first), area(second)), shared)
    ratio = g.call(aten.div.Tensor, shared, total)
    meets = g.call(aten.gt.Scalar, shared, 0)
    return g.call(aten.logical_and.default, meets, g.call(aten.gt.Tensor, ratio, threshold))


TABLE: dict[str, Translation] = {
    "NonMaxSuppression": non_max_suppression,
    "RoiAlign": roi_align,
}
