"""Sessions: prefill in chunks, verification with rollback, all without a trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from effc.runtime.session import Session

Make = Callable[..., Any]


def assert_logits(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to rounding: 1e-5 of the largest logit, about 80 fp32 steps of it."""
    bound = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=bound)


def visible_state(session: Session) -> list[dict[int, list[torch.Tensor]]]:
    """Per row, what every plane holds for each token of each group, by token."""
    state = []
    program = session._executable.program
    for row, length in enumerate(session.store.lengths):
        tokens: dict[int, list[torch.Tensor]] = {}
        for group in program.groups:
            table = session.store._tables[group.name]
            for token in range(table.first_token(row), length):
                (slot,) = table._slots(row, 0, token, token + 1)
                planes = [
                    pool[slot // program.page_size, :, slot % program.page_size]
                    for name, pool in session.store._pools.items()
                    if name[1] == str(program.groups.index(group))
                ]
                tokens.setdefault(token, []).extend(plane.clone() for plane in planes)
        state.append(tokens)
    return state


def assert_same_state(one: Session, other: Session) -> None:
    assert one.store.lengths == other.store.lengths
    for mine, theirs in zip(visible_state(one), visible_state(other), strict=True):
        assert mine.keys() == theirs.keys()
        for token, planes in mine.items():
            assert all(map(torch.equal, planes, theirs[token]))


@pytest.mark.parametrize("functional", [False, True])
def test_prefill_in_chunks_gives_the_logits_of_a_dense_model(
    tiny: Make, prompts: list[list[int]], functional: bool
) -> None:
    model = tiny(functional=functional)
    logits = Session(model, 3, 20, "cpu").advance(prompts)
    # The window of 6 bounds the chunk. 14 tokens go as 6 + 6 + 2; shorter rows join later, and
    # the last piece of one of them is 3 long.
    assert model.calls == [(3, 6), (3, 6), (3, 3)]
    for row, prompt in zip(logits, prompts, strict=True):
        assert_logits(row, model.dense(prompt)[-1])


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_rejected_tokens_leave_no_trace(tiny: Make, prompts: list[list[int]], form: str) -> None:
    """Bit for bit: the state and the next logits are those of a run that never guessed."""
    plain, guessing = (Session(tiny(form), 3, 40, "cpu") for _ in range(2))
    for session in (plain, guessing):
        session.advance(prompts)
    choice = random.Random(1)
    for _ in range(12):
        new = [[choice.randrange(31) for _ in range(choice.randint(1, 2))] for _ in range(3)]
        guesses = [[choice.randrange(31) for _ in range(choice.randint(0, 3))] for _ in range(3)]
        expected = plain.step(new, all_logits=True)
        plain.commit()
        drafts = [row + guess for row, guess in zip(new, guesses, strict=True)]
        logits = guessing.step(drafts, all_logits=True)
        guessing.commit([len(row) for row in new])
        for row, tokens in enumerate(new):
            assert torch.equal(logits[row, : len(tokens)], expected[row, : len(tokens)])
        assert_same_state(plain, guessing)


def test_drafting_with_eviction_and_int8_pages_is_plain_greedy(
    tiny: Make, prompts: list[list[int]]
) -> None:
    model = tiny("int8")
    plain = decode_greedily(Session(model, 1, 40, "cpu"), prompts[1], 24)
    choice = random.Random(2)
    session = Session(model, 1, 44, "cpu")
    tokens = [int(session.advance([prompts[1]]).argmax())]
    while len(tokens) < 24:
        right = plain[len(tokens) : len(tokens) + 2]
        draft = [t if choice.random() < 0.6 else choice.randrange(31) for t in right]
        chosen = session.step([tokens[-1:] + draft], all_logits=True)[0].argmax(-1).tolist()
        accepted = 0
        while accepted < len(draft) and draft[accepted] == chosen[accepted]:
            accepted += 1
        session.commit([1 + accepted])
        tokens += chosen[: 1 + accepted]
    assert tokens[:24] == plain
    assert session.store.counters().tokens_rolled_back > 0
    assert session.store.counters().tokens_evicted > 0


def decode_greedily(session: Session, prompt: list[int], count: int) -> list[int]:
    tokens = [int(session.advance([prompt]).argmax())]
    while len(tokens) < count:
        tokens.append(int(session.advance([tokens[-1:]]).argmax()))
    return tokens


def test_a_tree_of_drafts_is_verified_in_one_step(tiny: Make, prompts: list[list[int]]) -> None:
    """Two siblings after one parent: each gets the logits it would get as the only child.

    Token places count on along the row, so only the first child stands where it would stand alone.
    """
    session = Session(tiny(), 1, 40, "cpu")
    session.advance(prompts[:1])
    tree = torch.tensor([[[1, 0, 0], [1, 1, 0], [1, 0, 1]]], dtype=torch.bool)
    logits = session.step([[4, 7, 9]], all_logits=True, tree_mask=tree)
    session.commit([1])
    first = session.step([[7]])
    assert torch.equal(logits[0, 1], first[0, 0])
    session.commit([0])
    blind = session.step([[7, 9]], all_logits=True)
    assert not torch.equal(logits[0, 2], blind[0, 1])


def test_rows_that_leave_do_not_disturb_the_others(tiny: Make, prompts: list[list[int]]) -> None:
    together, alone = Session(tiny(), 3, 40, "cpu"), Session(tiny(), 1, 40, "cpu")
    together.advance(prompts)
    alone.advance([prompts[2]])
    together.keep_rows([2])
    assert_logits(together.step([[5]]), alone.step([[5]]))
