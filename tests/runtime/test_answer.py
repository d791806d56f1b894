"""Stop strings: found at the first token that completes one, wherever the token borders lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.runtime.answer import Answer, StopRule

# Token -> text: tokens without text, of one and of several characters.
TEXTS = ["", "", "a", "b", "ab", "ba", "aab", "b" * 9]


def decode(tokens: Sequence[int]) -> str:
    return "".join(TEXTS[token] for token in tokens)


def ending(tokens: Sequence[int], stops: tuple[str, ...]) -> int | None:
    """How many tokens come out, when they arrive one by one."""
    answer = Answer([1], torch.Generator())
    rule = StopRule(1000, None, frozenset(), stops, decode)
    for token in tokens:
        answer.tokens.append(token)
        rule.close(answer)
        if answer.finish is not None:
            assert answer.finish == "stop"
            return len(answer.tokens)
    return None


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, len(TEXTS) - 1), max_size=80),
    st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=3),
)
def test_the_first_token_that_completes_a_stop_string_ends_the_answer(
    tokens: list[int], stops: list[str]
) -> None:
    prefixes = range(1, len(tokens) + 1)
    hits = [n for n in prefixes if any(stop in decode(tokens[:n]) for stop in stops)]
    assert ending(tokens, tuple(stops)) == (hits[0] if hits else None)


def test_tokens_without_text_between_the_parts_of_a_stop_string() -> None:
    assert ending([2, *[0] * 50, 3, 2], ("ab",)) == 52
