"""Family `reason`: problems, traces and their dependency graphs, against independent readers.

The readers here know the text only. Programs are valid Python, so Python runs them; in whole
numbers, reduced at the end, since that is what arithmetic modulo 7 means.
"""

from __future__ import annotations

import itertools
import re

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.evaluate.tasks.base import EVALUATION_SEED, Item, stream
from effc.evaluate.tasks.programs import (
    MODULUS,
    VARIABLES,
    Program,
    draw_program,
    solve_program,
)
from effc.evaluate.tasks.reason import (
    DETOURS,
    SIZES,
    WORDS,
    Arithmetic,
    Stack,
    Worked,
    final_state,
    work_program,
    work_tree,
)
from effc.evaluate.tasks.traces import Habit, Trace, draw_habit
from effc.evaluate.tasks.trees import Tree, draw_tree

TASKS = (Arithmetic(), Stack())

habits = st.builds(
    Habit, errors=st.integers(0, 100), checks=st.integers(0, 100), final_checks=st.integers(0, 3)
)
seeds = st.integers(0, 2**32 - 1)
programs = st.builds(
    lambda seed, steps, habit: work_program(stream(seed, 0), steps, habit),
    seeds,
    st.integers(1, 16),
    habits,
)
trees = st.builds(
    lambda seed, depth, detours, habit: work_tree(stream(seed, 0), depth, detours, habit),
    seeds,
    st.integers(2, 16),
    st.integers(0, 10),
    habits,
)
every_problem = settings(max_examples=60, deadline=None, derandomize=True)


def run_as_python(context: str) -> str:
    """Run a program's text as Python, on whole numbers."""
    state, *lines = context.removesuffix(" ; end").split(" ; ")
    words = state.split()
    values = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    for line in lines:
        exec(line.split(" ", 1)[1], {}, values)
    return " ".join(f"{name} {values[name] % MODULUS}" for name in "abcd")


def read_edges(context: str) -> dict[str, list[str]]:
    lines = context.removesuffix(" ;").split(" ; ")[1:]
    lists = [line.split(" : ") for line in lines]
    return {
        node: [child for child in below.split(" , ") if child != "none"] for node, below in lists
    }


def find_path(context: str, question: str) -> str:
    """Find the way from the root to the target, in a graph library's words."""
    root = context.split()[1]
    graph = nx.DiGraph(read_edges(context))
    assert nx.is_arborescence(graph)
    return " ".join(nx.shortest_path(graph, root, question.split()[1]))


def search_by_recursion(context: str, question: str) -> list[str]:
    """Return the steps of a depth-first search, written as a recursive function."""
    edges, target = read_edges(context), question.split()[1]
    steps: list[str] = []

    def visit(node: str, depth: int, after: str) -> bool:
        if node == target:
            steps.append(f"enter {depth} {node} found ;")
            return True
        below = edges[node]
        steps.append(f"enter {depth} {node} : {below[0] if below else 'none'} ;")
        for child, following in itertools.zip_longest(below, below[1:], fillvalue="none"):
            if visit(child, depth + 1, following):
                return True
        steps.append(f"leave {depth} {node} , {after} ;")
        return False

    assert visit(context.split()[1], 1, "none")
    return steps


def outcome(step: str) -> str:
    """Return what a step or a check comes to: the value, or the node that is entered."""
    words = step.split()
    return words[2] if words[0] == "enter" else words[-2]


def replay(context: str, steps: list[str]) -> str:
    """Derive the final state from the text of steps alone, later ones overruling earlier ones."""
    state = dict(re.findall(r"([a-d]) (\d)", context.split(" ; ")[0]))
    stack: dict[int, str] = {}
    for step in steps:
        if match := re.search(r"gives ([a-d]) (\d) ;", step):
            state[match[1]] = match[2]
        if match := re.match(r"enter (\d+) (\w)", step):
            stack[int(match[1])] = match[2]
        if match := re.match(r"leave (\d+) (\w)", step):
            assert stack.pop(int(match[1])) == match[2]
    if stack:
        return " ".join(stack[depth] for depth in sorted(stack))
    return " ".join(f"{name} {value}" for name, value in state.items())


def texts(trace: Trace, *kinds: str) -> list[str]:
    return [step.text for step in trace.steps if step.kind in kinds]


def graph_of(trace: Trace) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(trace.steps)))
    graph.add_edges_from(
        (source, index) for index, step in enumerate(trace.steps) for source in step.depends_on
    )
    return graph


@every_problem
@given(programs)
def test_python_agrees_with_the_final_state_of_a_program(worked: Worked) -> None:
    assert final_state(worked.trace.text) == run_as_python(worked.context)


@every_problem
@given(trees)
def test_a_graph_library_agrees_with_the_final_stack(worked: Worked) -> None:
    assert final_state(worked.trace.text) == find_path(worked.context, worked.question)


@every_problem
@given(trees)
def test_search_without_reflection_is_the_recursive_one(worked: Worked) -> None:
    enters_and_leaves = texts(worked.trace, "progress")[:-2]
    assert enters_and_leaves == search_by_recursion(worked.context, worked.question)


@every_problem
@given(programs)
def test_every_statement_is_carried_out_once_and_in_order(worked: Worked) -> None:
    statements = worked.context.removesuffix(" ; end").split(" ; ")[1:]
    steps = texts(worked.trace, "progress")[:-2]
    assert [step.split(" : ")[0] for step in steps] == statements
    for step in steps:
        operands, value = re.search(r": (\d . \d) gives \w (\d) ;", step).groups()
        assert eval(operands) % MODULUS == int(value)


@every_problem
@given(st.one_of(programs, trees))
def test_dependencies_point_backwards(worked: Worked) -> None:
    for index, step in enumerate(worked.trace.steps):
        assert all(0 <= source < index for source in step.depends_on)
        assert list(step.depends_on) == sorted(set(step.depends_on))
    assert nx.is_directed_acyclic_graph(graph_of(worked.trace))


@every_problem
@given(st.one_of(programs, trees))
def test_answer_rests_on_everything_but_the_useless(worked: Worked) -> None:
    steps = worked.trace.steps
    used = nx.ancestors(graph_of(worked.trace), len(steps) - 1) | {len(steps) - 1}
    useless = {i for i, step in enumerate(steps) if step.kind in ("useless-check", "final-check")}
    assert used == set(range(len(steps))) - useless


@every_problem
@given(st.one_of(programs, trees))
def test_every_useful_check_names_a_real_error(worked: Worked) -> None:
    steps = worked.trace.steps
    errors = {index for index, step in enumerate(steps) if step.kind == "error"}
    checks = {index for index, step in enumerate(steps) if step.kind == "useful-check"}
    assert sorted(steps[index].depends_on for index in checks) == [(i,) for i in sorted(errors)]
    for index in checks:
        (error,) = steps[index].depends_on
        corrections = [step for step in steps if index in step.depends_on]
        assert [step.kind for step in corrections] == ["progress"]
        wrong, right = outcome(steps[error].text), outcome(corrections[0].text)
        assert wrong != right
        assert steps[error].text.split()[:2] == corrections[0].text.split()[:2]
        # The check names the outcome that the correction then takes, and rejects the error's.
        assert steps[index].text.split()[-3:] == [right, "wrong", ";"]
        assert set(corrections[0].depends_on) == {index, *steps[error].depends_on}


@every_problem
@given(st.one_of(programs, trees))
def test_useless_checks_confirm_a_right_step(worked: Worked) -> None:
    steps = worked.trace.steps
    for step in steps:
        if step.kind == "useless-check":
            (checked,) = step.depends_on
            assert steps[checked].kind == "progress"
            assert step.text.split()[-3:-1] == [outcome(steps[checked].text), "ok"]
        if step.kind == "final-check":
            (settled,) = step.depends_on
            assert settled == steps[-1].depends_on[0]
            assert step.text == f"verify {final_state(worked.trace.text)} ok ;"


@every_problem
@given(st.one_of(programs, trees))
def test_final_state_is_derivable_without_reviews_and_errors(worked: Worked) -> None:
    expected = final_state(worked.trace.text)
    assert replay(worked.context, [step.text for step in worked.trace.steps]) == expected
    assert replay(worked.context, texts(worked.trace, "progress")) == expected


@every_problem
@given(st.one_of(programs, trees))
def test_kinds_are_as_the_words_say(worked: Worked) -> None:
    reviews = {"check": {"ok": "useless-check", "wrong": "useful-check"}, "verify": "final-check"}
    for step in worked.trace.steps:
        words = step.text.split()
        named = reviews.get(words[0], ("progress", "error"))
        if isinstance(named, dict):
            named = named[words[-2]]
        assert step.kind in named if isinstance(named, tuple) else step.kind == named


@every_problem
@given(st.one_of(programs, trees))
def test_texts_are_known_words_between_single_spaces(worked: Worked) -> None:
    words = " ".join([worked.context, worked.question, worked.trace.text]).split(" ")
    assert set(words) <= set(WORDS)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_items_fit_the_lengths_that_models_are_made_for(task: Arithmetic | Stack) -> None:
    items = task.items(400, EVALUATION_SEED)
    assert max(len(item.answer.split()) for item in items) <= 600
    assert max(len(f"{item.prompt} {item.answer}".split()) for item in items) + 2 <= 768


def test_every_word_of_the_vocabulary_is_used() -> None:
    seen: set[str] = set()
    for task, index in itertools.product(TASKS, range(3)):
        for item in task.items(80, EVALUATION_SEED + index):
            seen.update(f"{item.prompt} {item.answer}".split())
    assert seen == set(WORDS) and len(set(WORDS)) == len(WORDS)


@every_problem
@given(programs, seeds)
def test_reflection_changes_nothing_but_the_reviews(worked: Worked, seed: int) -> None:
    """The same program told tersely is the progress of the wordy trace."""
    terse = solve_program(Program.parse(worked.context), Habit(), stream(seed, 1))
    assert [step.text for step in terse.steps] == texts(worked.trace, "progress")
    assert {step.kind for step in terse.steps} == {"progress"}


def test_habits_at_their_extremes_are_carried_out_to_the_letter() -> None:
    trace = work_program(stream(0, 0), 9, Habit(errors=100, checks=100, final_checks=3)).trace
    kinds = [step.kind for step in trace.steps]
    once = ["error", "useful-check", "progress", "useless-check"]
    assert kinds == [*once * 9, "progress", *["final-check"] * 3, "progress"]


def test_habits_are_drawn_from_terse_to_thorough() -> None:
    drawn = [draw_habit(stream(0, index)) for index in range(400)]
    assert {habit.checks for habit in drawn} == {0, 60, 80, 100}
    assert {habit.final_checks for habit in drawn} == {0, 1, 2, 3}
    # Checking must be what a greedy reader of these traces does after its first step.
    assert np.mean([habit.checks for habit in drawn]) > 55


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seeds)
def test_programs_can_be_undone(seed: int) -> None:
    """All 2401 initial states lead to different final states, so none is likelier than another."""
    program = draw_program(stream(seed, 0), 8)
    states = itertools.product(range(MODULUS), repeat=len(VARIABLES))
    finals = {Program(state, program.statements).run() for state in states}
    assert len(finals) == MODULUS ** len(VARIABLES)


@every_problem
@given(seeds, st.integers(1, 16))
def test_programs_are_read_back(seed: int, steps: int) -> None:
    program = draw_program(stream(seed, 0), steps)
    assert Program.parse(program.text) == program


@every_problem
@given(seeds, st.integers(2, 16), st.integers(0, 10))
def test_trees_are_read_back_and_as_ordered(seed: int, depth: int, detours: int) -> None:
    tree, target = draw_tree(stream(seed, 0), depth, detours)
    assert Tree.parse(tree.text) == tree
    assert len(tree.stack(target)) == depth
    assert len(tree.children) == depth + detours
    assert not tree.children[target]
    assert max(len(tree.stack(node)) for node in tree.children) <= 16


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_items_depend_on_seed_and_index_alone(task: Arithmetic | Stack) -> None:
    items = task.items(12, EVALUATION_SEED)
    assert task.items(5, EVALUATION_SEED) == items[:5]
    others = {item.context for item in task.items(12, EVALUATION_SEED + 1)}
    assert not others & {item.context for item in items}
    sizes = [next(iter(item.facets.values())) for item in items]
    assert sizes == [str(size) for size in SIZES] * 3


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_only_the_final_state_is_scored(task: Arithmetic | Stack) -> None:
    first, second = task.items(2, EVALUATION_SEED)
    state = final_state(first.answer)
    assert task.correct(first, first.answer)
    assert task.correct(first, f"answer {state}\n")
    assert task.correct(first, f"answer {final_state(second.answer)} answer {state}")
    for wrong in ("", state, "answer", f"answer {state} {state}", second.answer):
        assert not task.correct(first, wrong)
    assert not task.correct(first, f"answer {' '.join(state.split()[:-1])}")


def test_shortcut_of_arithmetic_sees_the_last_two_statements() -> None:
    item = Arithmetic().items(1, EVALUATION_SEED)[0]
    state, *lines = item.context.removesuffix(" ; end").split(" ; ")
    assert final_state(Arithmetic().shortcut(item)) == run_as_python(
        " ; ".join([state, *lines[-2:], "end"])
    )


def test_shortcut_of_the_search_needs_a_tree_without_detours() -> None:
    straight, bent = (work_tree(stream(0, 0), 8, detours, Habit()) for detours in (0, DETOURS))
    task = Stack()
    for worked, expected in ((straight, True), (bent, False)):
        item = Item(worked.context, worked.question, worked.trace.text)
        assert task.correct(item, task.shortcut(item)) is expected


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_shortcuts_are_rarely_right(task: Arithmetic | Stack) -> None:
    items = task.items(200, EVALUATION_SEED)
    assert sum(task.correct(item, task.shortcut(item)) for item in items) <= 20


def test_chance_of_the_search_is_one_among_its_nodes() -> None:
    items = Stack().items(4, EVALUATION_SEED)
    nodes = [len(read_edges(item.context)) for item in items]
    assert Stack.chance == pytest.approx(np.mean([1 / count for count in nodes]))
