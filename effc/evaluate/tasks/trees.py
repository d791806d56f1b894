"""Trees that are searched depth first for a node, and the traces of the stack.

root c ; f : k , m , none ; k : none ; ...    a tree: nodes with their children, in any order
until m found                                 what is looked for
enter 3 k : none ;                            k is put on the stack, at depth 3; it has no child
check f : k ok ;                              k is the first child of f
leave 3 k , m ;                               k is taken off; m is next to it
enter 3 m found ;
check k , m ok ;                              m is next to k
end 1 c 2 f 3 m ;                             the stack, with depths
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from numpy.random import Generator

from effc.evaluate.tasks.traces import Habit, Narrator, Trace

NODES = tuple("abcdefghijklmnopqrstuvwxyz")
MAX_DEPTH = 16

NONE = "none"
"""Stands where a list of children ends."""


@dataclass(frozen=True)
class Tree:
    """A tree to search.

    Attributes:
        root: Its root.
        children: The children of every node, in the order of the search; nodes in text order.
    """

    root: str
    children: Mapping[str, tuple[str, ...]]

    @property
    def text(self) -> str:
        lines = [
            f"{node} : {' , '.join([*below, NONE])} ;" for node, below in self.children.items()
        ]
        return " ".join([f"root {self.root} ;", *lines])

    @staticmethod
    def parse(text: str) -> Tree:
        """Read what `text` wrote."""
        head, *lines = text.removesuffix(" ;").split(" ; ")
        children = {}
        for line in lines:
            node, _, *below = line.split()
            children[node] = tuple(below[:-1:2])
        return Tree(head.split()[1], children)

    def stack(self, target: str) -> tuple[str, ...]:
        """Return the nodes from the root to `target`: the stack when the search finds it."""
        parents = {child: node for node, below in self.children.items() for child in below}
        nodes = [target]
        while nodes[-1] in parents:
            nodes.append(parents[nodes[-1]])
        return tuple(reversed(nodes))


def draw_tree(rng: Generator, depth: int, detours: int) -> tuple[Tree, str]:
    """Draw a tree and a node to find in it.

    Args:
        rng: Source of randomness.
        depth: Nodes on the stack when the target is found, 2 to 16.
        detours: Nodes off the path to the target, at most 26 - `depth`; each is the first
            child of a random node with chance 2/3, so that many are searched in vain.

    Returns:
        The tree and the target. No node lies deeper than 16.
    """
    nodes = [NODES[index] for index in rng.permutation(len(NODES))[: depth + detours].tolist()]
    path, rest = nodes[:depth], nodes[depth:]
    children = {node: [child] for node, child in zip(path, path[1:], strict=False)}
    children[path[-1]] = []
    depths = {node: number for number, node in enumerate(path, 1)}
    hosts = path[:-1]
    for node in rest:
        host = hosts[rng.integers(len(hosts))]
        children[host].insert(0 if rng.integers(3) else len(children[host]), node)
        children[node] = []
        depths[node] = depths[host] + 1
        if depths[node] < MAX_DEPTH:
            hosts.append(node)
    order = [nodes[index] for index in rng.permutation(len(nodes)).tolist()]
    return Tree(path[0], {node: tuple(children[node]) for node in order}), path[-1]


def search_tree(tree: Tree, target: str, habit: Habit, rng: Generator) -> Trace:
    """Search a tree depth first, children in order, until the target is on the stack."""
    narrator = Narrator(habit, rng)

    def enter(depth: int, node: str) -> str:
        first = "found" if node == target else f": {[*tree.children[node], NONE][0]}"
        return f"enter {depth} {node} {first} ;"

    stack = [tree.root]
    entered = [narrator.say(enter(1, tree.root), "progress")]
    left: list[tuple[str, int]] = []  # the child of the topmost node that was left last, if any
    while stack[-1] != target:
        depth, top = len(stack), stack[-1]
        sources = [entered[-1], *(step for _, step in left)]
        child = _following(tree.children[top], left[0][0] if left else None)
        if child == NONE:
            following = _following(tree.children[stack[-2]], top)
            step = narrator.say(f"leave {depth} {top} , {following} ;", "progress", *sources)
            left = [(stack.pop(), step)]
            entered.pop()
            continue
        cue = f"{left[0][0]} ," if left else f"{top} :"
        slip = _other_node(tree, {child, target}, rng)
        right, wrong = enter(depth + 1, child), enter(depth + 1, slip)
        entered.append(narrator.work(right, wrong, f"check {cue} {child}", *sources))
        stack.append(child)
        left = []
    numbered = " ".join(f"{depth} {node}" for depth, node in enumerate(stack, 1))
    return narrator.close(f"end {numbered} ;", " ".join(stack), *entered)


def _following(children: Sequence[str], child: str | None) -> str:
    """Return the child after a child, or the first one; `NONE` at the end."""
    ends = [*children, NONE]
    return ends[0 if child is None else ends.index(child) + 1]


def _other_node(tree: Tree, barred: set[str], rng: Generator) -> str:
    nodes = [node for node in tree.children if node not in barred]
    return nodes[rng.integers(len(nodes))]
