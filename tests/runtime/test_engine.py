"""The engine over a tiny model: what comes out, when it stops, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from effc.diagnostics import GenerationError
from effc.ir.program import ScheduleEntry
from effc.runtime.engine import Engine

Make = Callable[..., Any]
PAD = 30


def assert_logits(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to rounding: 1e-5 of the largest logit, about 80 fp32 steps of it."""
    bound = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=bound)


def left_padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


@pytest.mark.parametrize("functional", [False, True])
def test_greedy_is_that_of_a_dense_model(tiny: Make, prompts: Any, functional: bool) -> None:
    model = tiny(functional=functional)
    ids, mask = left_padded(prompts)
    out = Engine(model).generate(ids, mask, max_new_tokens=18)
    assert out.dtype == torch.int64 and torch.equal(out[:, :14], ids)
    for row, prompt in zip(out[:, 14:].tolist(), prompts, strict=True):
        assert row == model.greedy(prompt, 18)
        alone = Engine(tiny()).generate(torch.tensor([prompt]), max_new_tokens=18)
        assert alone[0, len(prompt) :].tolist() == row


def test_sampling_does_not_depend_on_company(tiny: Make, prompts: Any) -> None:
    options = {"do_sample": True, "seed": 7, "max_new_tokens": 10, "top_p": 0.95}
    ids, mask = left_padded(prompts)
    together = Engine(tiny()).generate(ids, mask, **options)
    first = Engine(tiny()).generate(torch.tensor(prompts[:1]), **options)
    assert together[0, 14:].tolist() == first[0, 3:].tolist()
    assert torch.equal(together, Engine(tiny()).generate(ids, mask, **options))


def test_forward_gives_all_logits_and_strips_padding(tiny: Make, prompts: Any) -> None:
    model = tiny()
    ids, mask = left_padded(prompts)
    logits = Engine(model).forward(ids, mask)
    assert logits.shape == (3, 14, 31)
    right = Engine(model).forward(ids.roll(-5, 1)[2:], mask.roll(-5, 1)[2:])
    for row, prompt in zip(logits, prompts, strict=True):
        expected = model.dense(prompt)
        assert_logits(row[-len(prompt) :], expected)
        assert row[: -len(prompt)].eq(0).all()
    assert_logits(right[0, :9], model.dense(prompts[2]))
    assert right[0, 9:].eq(0).all()


def test_finished_rows_are_padded_and_leave_the_batch(tiny: Make, prompts: Any) -> None:
    model = tiny()
    ids, mask = left_padded(prompts)
    plain = [model.greedy(prompt, 12) for prompt in prompts]
    eos = plain[0][4]
    expected = [row[: row.index(eos) + 1] if eos in row else row for row in plain]
    assert len({len(row) for row in expected}) > 1
    model.calls.clear()
    engine = Engine(model)
    options = {"max_new_tokens": 12, "eos_token_id": [eos], "pad_token_id": 29}
    result = engine.generate_result(ids, mask, **options)
    assert result.tokens == expected
    assert result.finish_reasons == ["eos" if row[-1] == eos else "length" for row in expected]
    decode = model.calls[3:]
    assert [batch for batch, _ in decode] == [
        sum(len(row) > step for row in expected) for step in range(1, max(map(len, expected)))
    ]
    out = engine.generate(ids, mask, **options)
    longest = max(map(len, expected))
    assert out.tolist() == [
        i + row + [29] * (longest - len(row)) for i, row in zip(ids.tolist(), expected, strict=True)
    ]


def test_the_model_s_own_end_and_padding_are_the_default(tiny: Make, prompts: Any) -> None:
    eos = tiny().greedy(prompts[0], 3)[2]
    ids, mask = left_padded(prompts[:2])
    for info, pad in (({"eos": (eos,)}, eos), ({"eos": (eos,), "pad": 28}, 28)):
        out = Engine(tiny(**info)).generate(ids, mask, max_new_tokens=6)[0, 14:].tolist()
        end = out.index(eos) + 1
        assert out[end:] == [pad] * (len(out) - end)
    never = Engine(tiny(eos=(eos,))).generate(ids, mask, max_new_tokens=6, eos_token_id=[])
    assert never[0, 14:].tolist() == tiny().greedy(prompts[0], 6)


def test_the_default_is_twenty_tokens(tiny: Make) -> None:
    assert Engine(tiny()).generate(torch.tensor([[1, 2]])).shape == (1, 22)


def test_generation_stops_at_the_end_of_the_context(tiny: Make) -> None:
    model = tiny()
    prompt = [n % 31 for n in range(36)]
    result = Engine(model).generate_result(torch.tensor([prompt]), max_new_tokens=10)
    assert result.tokens == [model.greedy(prompt, 4)]
    assert result.finish_reasons == ["context"]
    assert result.notes == [
        "row 0: the context of 40 tokens ended after 4 of 10 new tokens (the prompt has 36)"
    ]
    full = Engine(model).generate(torch.tensor([[*prompt, 1, 2, 3, 4]]))
    assert full.shape == (1, 40)


def test_nothing_asked_is_nothing_done(tiny: Make) -> None:
    model = tiny()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(Engine(model).generate(ids, max_new_tokens=0), ids)
    assert model.calls == []


def test_stop_strings_end_an_answer_where_they_appear(tiny: Make, prompts: Any) -> None:
    def decode(tokens: Any) -> str:
        return "".join(chr(65 + token) for token in tokens)

    plain = tiny().greedy(prompts[0], 12)
    stop = decode(plain[3:5])
    result = Engine(tiny(), decode=decode).generate_result(
        torch.tensor(prompts[:1]), max_new_tokens=12, stop_strings=["~~", stop]
    )
    assert result.tokens[0] == plain[: decode(plain).index(stop) + 2]
    assert result.finish_reasons == ["stop"]
    with pytest.raises(GenerationError, match="E0703.*stop_strings.*no tokenizer"):
        Engine(tiny()).generate(torch.tensor([[1]]), stop_strings="x")


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        assert value.ndim == 1 and not self.ended
        self.given.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


def test_streamer_gets_the_prompt_then_each_token(tiny: Make, prompts: Any) -> None:
    recorder = Recorder()
    out = Engine(tiny()).generate(torch.tensor(prompts[:1]), max_new_tokens=5, streamer=recorder)
    assert recorder.given == [prompts[0], *([token] for token in out[0, 3:].tolist())]
    assert recorder.ended == 1
    ids, mask = left_padded(prompts)
    with pytest.raises(GenerationError, match="E0703.*streamer must be used with one prompt"):
        Engine(tiny()).generate(ids, mask, streamer=Recorder())


def test_an_interrupt_keeps_what_is_there(tiny: Make, prompts: Any) -> None:
    model, recorder = tiny(), Recorder()
    model.interrupt_at = 4
    result = Engine(model).generate_result(torch.tensor(prompts[:1]), streamer=recorder)
    assert result.finish_reasons == ["interrupted"]
    assert result.tokens == [tiny().greedy(prompts[0], 3)]
    assert recorder.ended == 1


def test_logprobs_are_those_of_the_model(tiny: Make, prompts: Any) -> None:
    model = tiny()
    result = Engine(model).generate_result(
        torch.tensor(prompts[:1]), max_new_tokens=6, logprobs=True, repetition_penalty=1.3
    )
    laws = model.dense(prompts[0] + result.tokens[0]).log_softmax(-1)
    expected = [float(laws[2 + n, token]) for n, token in enumerate(result.tokens[0])]
    assert result.logprobs == [pytest.approx(expected, abs=1e-4)]


def test_result_counts_tokens_time_and_bytes(tiny: Make, prompts: Any) -> None:
    ids, mask = left_padded(prompts)
    result = Engine(tiny()).generate_result(ids, mask, max_new_tokens=9)
    assert result.logprobs is None and result.notes == []
    assert result.counters["tokens_written"] == 3 + 14 + 9 + 3 * 8
    assert result.counters["tokens_evicted"] > 0 == result.counters["tokens_rolled_back"]
    assert 0 < result.counters["bytes_held"] <= result.counters["bytes_device"]
    assert set(result.timings) == {"prefill_s", "decode_s", "tokens_per_s"}
    assert result.timings["tokens_per_s"] == pytest.approx(3 * 8 / result.timings["decode_s"])


IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])
REFUSED = {
    "long": (torch.zeros(1, 41, dtype=torch.int64), {}, "E0701.*41 tokens.*40\nhelp: cut"),
    "vocabulary": (torch.tensor([[1, 2], [3, 31]]), {}, "row 1, column 1: .*E0702.*31.*0..30"),
    "negative": (torch.tensor([[-1]]), {}, "row 0, column 0: .*E0702.*-1"),
    "list": ([[1, 2]], {}, "E0703.*input_ids must be a tensor"),
    "float": (torch.zeros(1, 2), {}, "E0703.*integers, found torch.float32"),
    "flat": (torch.tensor([1, 2]), {}, r"E0703.*\[B, T\], found \[2\]\nhelp: .*unsqueeze"),
    "empty": (torch.zeros(1, 0, dtype=torch.int64), {}, "E0703.*at least one token"),
    "mask shape": (IDS, {"attention_mask": torch.ones(2, 2)}, r"E0703.*\[2, 3\], found \[2, 2\]"),
    "mask type": (IDS, {"attention_mask": [[1]]}, "E0703.*attention_mask.*found 'list'"),
    "right padded": (
        IDS,
        {"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])},
        "E0703.*right end of row 1'\nhelp: tokenizer.padding_side",
    ),
    "holes": (IDS, {"attention_mask": torch.tensor([[1, 0, 1], [1, 1, 1]])}, "holes in row 0"),
    "all padding": (
        IDS,
        {"attention_mask": torch.tensor([[1, 1, 1], [0, 0, 0]])},
        "E0703.*row 1 all padding",
    ),
    "unknown": (IDS, {"max_length": 3}, "E0703.*no argument 'max_length'"),
    "count": (IDS, {"max_new_tokens": -1}, "E0703.*max_new_tokens must be an integer >= 0"),
    "eos": (IDS, {"eos_token_id": "x"}, "E0703.*eos_token_id must be an integer"),
    "stop": (IDS, {"stop_strings": [""]}, "E0703.*stop_strings must be a non-empty text"),
    "logprobs": (IDS, {"logprobs": 1}, "E0703.*logprobs must be True or False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_calls_are_refused_with_place_and_remedy(tiny: Make, name: str) -> None:
    ids, arguments, message = REFUSED[name]
    model = tiny(vocabulary=31)
    with pytest.raises(GenerationError, match=message):
        Engine(model).generate(ids, **arguments)
    assert model.calls == []


def test_programs_that_cannot_generate_are_refused(tiny: Make) -> None:
    model = tiny()
    model.program = replace(model.program, loop="none")
    expected = r"E0704.*no next token.*loop is 'none'.*decode(.|\n)*help: call the model"
    with pytest.raises(GenerationError, match=expected):
        Engine(model)
    model = tiny()
    model.program = replace(model.program, schedule=(ScheduleEntry("every", "compact"),))
    with pytest.raises(GenerationError, match="E0704.*'compact' 'every'"):
        Engine(model).generate(IDS)
