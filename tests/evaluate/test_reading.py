"""Two models read and answer: laws, streams and answers."""

from __future__ import annotations

import pytest
import torch

import effc.evaluate.reading as reading
from effc.diagnostics import GenerationError
from effc.evaluate.divergence import summarize
from effc.evaluate.greedy import GreedyAnswers, agreement, common_prefix, greedy_answers
from effc.evaluate.layers import LayerErrors, Tapped, with_taps
from effc.evaluate.reading import batches, compare_reading
from effc.evaluate.subject import Subject
from effc.evaluate.texts import EvaluationText
from effc.ir.program import Program
from effc.ir.verify import verify
from tests.evaluate.models import CONTEXT, altered, canonical_decoder, lowered, noisy
from tests.programs import Decoder, decoder


@pytest.fixture(scope="module")
def program() -> Program:
    return lowered(canonical_decoder())


@pytest.fixture(scope="module")
def text() -> EvaluationText:
    generator = torch.Generator().manual_seed(2)
    lengths = (20, 20, 20, 13, 2, CONTEXT)
    rows = (torch.randint(Decoder.V, (n,), generator=generator).tolist() for n in lengths)
    return EvaluationText(tuple(map(tuple, rows)), "random")


def plain_logits(row: tuple[int, ...]) -> torch.Tensor:
    """What torch's own module says, [T, V]."""
    with torch.no_grad():
        return decoder()(torch.tensor([row]), torch.arange(len(row))[None])[0]


def test_a_program_does_not_differ_from_itself(program: Program, text: EvaluationText) -> None:
    rows, layers = compare_reading(Subject(program), Subject(program), text)
    assert all(row.kl == row.largest_kl == 0.0 for row in rows)
    assert [row.agreed for row in rows] == [len(row) for row in text.rows]
    assert summarize(rows)["perplexity"]["ratio"] == 1.0
    assert layers.result() == [{"layer": n, "relative_error": 0.0} for n in (0, 1)]


def test_rows_are_measured_against_what_the_module_says(text: EvaluationText) -> None:
    """Original: torch's module. Rewritten: the same with an independent change."""
    original = canonical_decoder()
    changed = noisy(original, 0.05)
    rows, _ = compare_reading(Subject(lowered(original)), Subject(lowered(changed)), text)
    engine = Subject(lowered(changed)).engine
    for row, found in zip(text.rows, rows, strict=True):
        p = plain_logits(row).double().log_softmax(-1)
        q = engine.forward(torch.tensor([row]))[0].double().log_softmax(-1)
        assert found.kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)
        assert found.loss_original == pytest.approx(
            -sum(float(p[t, row[t + 1]]) for t in range(len(row) - 1)), rel=1e-5
        )


def test_batches_change_nothing(
    program: Program, text: EvaluationText, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = Subject(lowered(noisy(canonical_decoder(), 0.05)))
    together, _ = compare_reading(Subject(program), changed, text)
    monkeypatch.setattr(reading, "BATCH_BYTES", 1)
    alone, _ = compare_reading(Subject(program), changed, text)
    for one, other in zip(together, alone, strict=True):
        assert one.kl == pytest.approx(other.kl, rel=1e-4)


def test_batches_hold_neighbours_of_equal_length() -> None:
    rows = [(0,) * n for n in (4, 4, 4, 3, 4, 2, 2)]
    vocabulary = reading.BATCH_BYTES // (4 * 4) // 2
    found = [[len(row) for row in batch] for batch in batches(rows, vocabulary)]
    assert found == [[4, 4], [4], [3], [4], [2, 2]]


def test_streams_are_what_hooks_see(program: Program) -> None:
    """The value after every layer of torch's module, and two pieces of a prompt joined."""
    model, seen = decoder(), []
    for layer in model.layers:
        layer.register_forward_hook(lambda module, args, result: seen.append(result))
    ids = torch.randint(Decoder.V, (2, 9))
    with torch.no_grad():
        model(ids, torch.arange(9).repeat(2, 1))
    subject = Subject(program)
    tapped = Tapped(subject, "decode")
    assert tapped.layers == [0, 1]
    from effc.runtime.session import Session

    session = Session(tapped, 2, 9, "cpu")
    session.advance_all(ids[:, :4].tolist())
    session.advance_all(ids[:, 4:].tolist())
    streams = tapped.take()
    for layer, expected in enumerate(seen):
        torch.testing.assert_close(streams[layer], expected, rtol=1e-4, atol=1e-5)
    assert subject.calls == {"decode": 2}


def test_taps_leave_the_program_alone(program: Program) -> None:
    before = program.stages["decode"].outputs
    copy, names = with_taps(program, "decode")
    verify(copy)
    assert program.stages["decode"].outputs == before
    assert copy.stages["decode"].outputs == (*before, *names.values())


def test_layers_before_a_change_are_equal(text: EvaluationText) -> None:
    original = canonical_decoder()
    changed = noisy(original, 0.05, "layers.1.")
    _, layers = compare_reading(Subject(lowered(original)), Subject(lowered(changed)), text)
    first, second = layers.result()
    assert first == {"layer": 0, "relative_error": 0.0}
    assert 0.001 < second["relative_error"] < 1.0


def test_relative_error_of_known_streams() -> None:
    errors = LayerErrors()
    errors.add({3: torch.tensor([[3.0, 0.0]])}, {3: torch.tensor([[3.0, 1.0]])})
    errors.add({3: torch.tensor([[0.0, 4.0]])}, {3: torch.tensor([[0.0, 4.0]])})
    assert errors.result() == [{"layer": 3, "relative_error": 0.2}]


def test_layers_that_only_one_model_has_are_left_out() -> None:
    errors = LayerErrors()
    x = torch.ones(1, 2, 4)
    errors.add({0: x, 1: x, 2: x}, {0: x, 1: x[..., :3]})
    assert errors.result() == [{"layer": 0, "relative_error": 0.0}]


def test_an_original_that_says_nothing_is_refused(program: Program, text: EvaluationText) -> None:
    broken = lowered(
        altered(
            canonical_decoder(),
            lambda name, values: values * torch.nan if "norm" in name else values,
        )
    )
    with pytest.raises(GenerationError, match="original") as error:
        compare_reading(Subject(broken), Subject(program), text)
    assert error.value.code == "E0705"


def test_common_prefix() -> None:
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2]) == 2


def test_agreement_of_known_answers() -> None:
    original = GreedyAnswers([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]], {})
    rewritten = GreedyAnswers([[1, 2, 3, 4], [5, 6, 0, 8], [0, 9, 9, 9]], {})
    assert agreement(original, rewritten) == {
        "mean_length": 2.0,
        "new_tokens": 4,
        "identical": 1,
        "prompts": 3,
    }


def test_answers_are_what_the_module_finds_likeliest(
    program: Program, text: EvaluationText
) -> None:
    """Prompts of different lengths in one batch, none ended early by an end token."""
    found = greedy_answers(Subject(program), text, new_tokens=12)
    for row, answer in zip(text.rows, found.tokens, strict=True):
        tokens = list(row[: len(row) // 2])
        for expected in answer:
            assert int(plain_logits(tuple(tokens))[-1].argmax()) == expected
            tokens.append(expected)
        assert len(answer) == 12
    assert found.counters["bytes_held"] > 0


def test_answers_stay_within_the_context(program: Program, text: EvaluationText) -> None:
    found = greedy_answers(Subject(program), text, new_tokens=1000)
    assert {len(answer) for answer in found.tokens} == {CONTEXT - CONTEXT // 2}


def test_a_model_without_numbers_says_nothing(text: EvaluationText) -> None:
    broken = altered(
        canonical_decoder(), lambda _, v: v * torch.nan if v.is_floating_point() else v
    )
    found = greedy_answers(Subject(lowered(broken)), text)
    assert found == GreedyAnswers([[] for _ in text.rows], {})
