"""The pattern matcher: hand-picked cases, and every small graph against a brute-force search."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx

from effc.ir.pattern import Call, Cast, Const, ListOf, Var, match, op_name
from tests.ir.graphs import aten, node_called, program_of

MUL, ADD, NEG, TO = "aten.mul.Tensor", "aten.add.Tensor", "aten.neg.default", "aten.to.dtype"


def root(build: Any) -> fx.Node:
    """The node that a stage of inputs x, y, z returns."""
    program = program_of(lambda call, n: call(aten.alias.default, build(call, n)), "xyz")
    return node_called(program, "alias").args[0]  # type: ignore[return-value]


def names(found: Any) -> dict[str, Any]:
    return {k: v.name if isinstance(v, fx.Node) else v for k, v in found.bound.items()}


def test_variables_and_constants_are_bound() -> None:
    node = root(lambda call, n: call(aten.mul.Tensor, call(aten.add.Tensor, n["x"], 1e-6), n["y"]))
    found = match(
        Call((MUL,), (Call((ADD,), (Var("a"), Const("eps")), name="sum"), Var("b"))), node
    )
    assert found
    assert names(found) == {"a": "x", "eps": 1e-6, "sum": "add", "b": "y"}
    assert found["eps"] == 1e-6
    assert found.depth == 2


@pytest.mark.parametrize("swap_outer", (False, True))
@pytest.mark.parametrize("swap_inner", (False, True))
def test_commutative_calls_match_in_every_order(swap_outer: bool, swap_inner: bool) -> None:
    def build(call, n):  # noqa: ANN001, ANN202
        inner = (call(aten.neg.default, n["x"]), n["y"])
        outer = (call(aten.mul.Tensor, *(inner[::-1] if swap_inner else inner)), n["x"])
        return call(aten.add.Tensor, *(outer[::-1] if swap_outer else outer))

    inner = Call((MUL,), (Call((NEG,), (Var("a"),)), Var("b")), commutative=True)
    pattern = Call((ADD,), (inner, Var("a")), commutative=True)
    assert names(match(pattern, root(build))) == {"a": "x", "b": "y"}


def test_order_matters_where_it_should() -> None:
    node = root(lambda call, n: call(aten.sub.Tensor, n["x"], call(aten.neg.default, n["y"])))
    pattern = Call(("aten.sub.Tensor",), (Call((NEG,), (Var("a"),)), Var("b")))
    found = match(pattern, node)
    assert not found
    assert found.reason == f"found placeholder, not {NEG}"


def test_repeated_variable_is_one_value() -> None:
    square = Call((MUL,), (Var("a"), Var("a")))
    assert match(square, root(lambda call, n: call(aten.mul.Tensor, n["x"], n["x"])))
    found = match(square, root(lambda call, n: call(aten.mul.Tensor, n["x"], n["y"])))
    assert (found.reason, found.culprit.name) == ("a is not the same value in both places", "y")  # type: ignore[union-attr]


def test_equal_but_separate_calls_are_two_values() -> None:
    node = root(
        lambda call, n: call(
            aten.mul.Tensor, call(aten.neg.default, n["x"]), call(aten.neg.default, n["x"])
        )
    )
    assert not match(Call((MUL,), (Var("a"), Var("a"))), node)
    assert match(Call((MUL,), (Call((NEG,), (Var("a"),)), Call((NEG,), (Var("a"),)))), node)


def test_repeated_constant_is_one_value() -> None:
    twice = Call((ADD,), (Call((ADD,), (Var("a"), Const("c"))), Const("c")))

    def build(first: int, second: int) -> fx.Node:
        return root(
            lambda call, n: call(aten.add.Tensor, call(aten.add.Tensor, n["x"], first), second)
        )

    assert match(twice, build(2, 2))["c"] == 2
    assert match(twice, build(2, 3)).reason == "c is not the same value in both places"


def test_casts_are_looked_through() -> None:
    import torch

    def build(call, n):  # noqa: ANN001, ANN202
        wide = call(aten.to.dtype, call(aten.to.dtype, n["x"], torch.float64), torch.float32)
        return call(aten.mul.Tensor, wide, n["y"])

    assert names(match(Call((MUL,), (Cast(Var("a")), Cast(Var("b")))), root(build))) == {
        "a": "x",
        "b": "y",
    }


def test_lists_match_item_by_item() -> None:
    node = root(lambda call, n: call(aten.cat.default, [call(aten.neg.default, n["x"]), n["y"]], 1))
    halves = ListOf((Call((NEG,), (Var("a"),)), Var("b")))
    assert names(match(Call(("aten.cat.default",), (halves, Const("dim"))), node)) == {
        "a": "x",
        "b": "y",
        "dim": 1,
    }
    found = match(Call(("aten.cat.default",), (ListOf((Var("a"),)),)), node)
    assert found.reason == "the list has another length"


@pytest.mark.parametrize(
    ("pattern", "reason", "culprit"),
    (
        (Call((NEG, MUL), (Var("a"),)), f"found {ADD}, not {NEG} or {MUL}", "add_1"),
        (Call((ADD,), (Var("a"), Var("b"))), "b is the literal 3", None),
        (Call((ADD,), (Const("c"), 3)), "c is computed, not a constant", "add"),
        (Call((ADD,), (Var("a"), Const("c", 4))), "c is 3, not 4", None),
        (Call((ADD,), (Var("a"), 4)), "found 3, not 4", None),
        (Call((ADD,), (Call((ADD,), (Var("a"), Var("b"))), 3)), "add sets alpha", "add"),
        (Call((ADD,), (Var("a"), 3, 1)), "add_1 has 2 arguments", "add_1"),
    ),
)  # fmt: skip
def test_reason_is_the_first_difference(pattern: Call, reason: str, culprit: str | None) -> None:
    node = root(
        lambda call, n: call(aten.add.Tensor, call(aten.add.Tensor, n["x"], n["y"], alpha=2), 3)
    )
    found = match(pattern, node)
    assert not found
    assert found.reason == reason
    assert (found.culprit.name if found.culprit else None) == culprit


def test_named_arguments_match_where_they_are_expected() -> None:
    node = root(lambda call, n: call(aten.add.Tensor, n["x"], n["y"], alpha=2))
    assert match(Call((ADD,), (Var("a"), Var("b")), keywords=("alpha",)), node)


def test_deepest_attempt_tells_the_reason() -> None:
    node = root(
        lambda call, n: call(
            aten.mul.Tensor, n["x"], call(aten.neg.default, call(aten.exp.default, n["y"]))
        )
    )
    pattern = Call((MUL,), (Call((NEG,), (Call((NEG,), (Var("a"),)),)), Var("b")), commutative=True)
    found = match(pattern, node)
    assert (found.depth, found.reason) == (2, "found aten.exp.default, not aten.neg.default")
    assert found.culprit is not None and found.culprit.name == "exp"


# Against brute force: bind every variable to every node, and evaluate the pattern.

LEAVES = ("x", "y")


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, tuple[int, ...]]]:
    """Calls in order; arguments are indices of earlier values, 0 and 1 are the inputs."""
    calls = []
    for position in range(draw(st.integers(1, 5))):
        pick = st.integers(0, position + len(LEAVES) - 1)
        op = draw(st.sampled_from((MUL, ADD, NEG, TO)))
        calls.append((op, (draw(pick),) if op in (NEG, TO) else (draw(pick), draw(pick))))
    return calls


def patterns(depth: int = 3) -> st.SearchStrategy[Any]:
    variable = st.sampled_from("abc").map(Var)
    if not depth:
        return variable
    inner = patterns(depth - 1)
    binary = st.builds(
        lambda op, left, right, swap: Call((op,), (left, right), commutative=swap),
        st.sampled_from((MUL, ADD)),
        inner,
        inner,
        st.booleans(),
    )
    either = st.builds(lambda left, right: Call((MUL, ADD), (left, right)), inner, inner)
    return st.one_of(
        variable, binary, either, inner.map(lambda p: Call((NEG,), (p,))), inner.map(Cast)
    )


def variables(pattern: Any) -> set[str]:
    if isinstance(pattern, Var):
        return {pattern.name}
    parts = (pattern.inner,) if isinstance(pattern, Cast) else pattern.args
    return set().union(*map(variables, parts))


def holds(pattern: Any, node: fx.Node, bound: dict[str, fx.Node]) -> bool:
    """Whether a pattern with all variables bound describes the node."""
    if isinstance(pattern, Var):
        return bound[pattern.name] is node
    if isinstance(pattern, Cast):
        while op_name(node) == TO:
            node = node.args[0]  # type: ignore[assignment]
        return holds(pattern.inner, node, bound)
    if op_name(node) not in pattern.ops:
        return False
    orders = [tuple(node.args), tuple(node.args)[::-1]] if pattern.commutative else [node.args]
    return any(
        all(holds(p, a, bound) for p, a in zip(pattern.args, order, strict=True))  # type: ignore[arg-type]
        for order in orders
    )


@settings(deadline=None, max_examples=400, derandomize=True)
@given(graphs(), patterns())
def test_matcher_agrees_with_brute_force(
    calls: list[tuple[str, tuple[int, ...]]], pattern: Any
) -> None:
    graph = fx.Graph()
    nodes = [graph.placeholder(name) for name in LEAVES]
    targets = {MUL: aten.mul.Tensor, ADD: aten.add.Tensor, NEG: aten.neg.default, TO: aten.to.dtype}
    for op, args in calls:
        nodes.append(graph.call_function(targets[op], tuple(nodes[i] for i in args)))
    names = sorted(variables(pattern))
    for node in nodes:
        found = match(pattern, node)
        bindings = (dict(zip(names, c, strict=True)) for c in product(nodes, repeat=len(names)))
        solutions = [b for b in bindings if holds(pattern, node, b)]
        assert bool(found) == bool(solutions)
        if found:
            assert found.bound in solutions
        else:
            assert found.reason
