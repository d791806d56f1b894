"""The seam between compiler and runtime holds what later methods will put on it.

An experiment through the real `decode` signature: a pass that evicts by sliding window although
attention itself sees everything (lossy), pages stored as int8, and verification of two drafted
tokens with rollback, all three at once. With the eviction at fixed token counts and drafts cut to
end there, greedy output is that of the same eviction and pages without drafting, token for token.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from effc.canonical import canonical_program
from effc.diagnostics import InternalError
from effc.ir.journal import Journal
from effc.ir.manager import PassManager
from effc.ir.passbase import Outcome, Pass, PassStage, Semantics
from effc.ir.pattern import op_name
from effc.ir.program import InputSpec, Program, ScheduleEntry
from effc.passes.caching.insert_cache import InsertCache
from effc.pipeline import lowering_passes
from effc.runtime.executable import Executable
from effc.runtime.session import Session
from effc.spec.schema import Policy
from tests.e2e.families import VOCABULARY, Family

PAGE = 8
WINDOW = 24
NEW = 80

# From the number of tokens generated so far to a guess of the next two.
Draft = Callable[[int], list[int]]


@dataclass(frozen=True)
class EvictByWindow(Pass):
    """Drop tokens older than a window from the group "full" of int8 pages, at fixed counts.

    Before:
        o = effc.attend(q, [k0], [v0], ..., table_full, None, ...)
    After:
        o = effc.attend(q, [k0], [v0], ..., table_full, index_full, ...)
    """

    name: ClassVar[str] = "evict-by-window"
    stage: ClassVar[PassStage] = PassStage.TRANSFORM
    semantics: ClassVar[Semantics] = Semantics.LOSSY
    after: ClassVar[tuple[str, ...]] = ("insert-cache",)

    window: int = WINDOW

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """Give the group an index and a schedule."""
        stage = program.stages["decode"]
        rewriter = self.rewriter(program, stage, journal)
        pool = stage.placeholder("k0_codes").meta["val"]
        with pool.fake_mode:
            value = torch.empty((pool.shape[0], program.page_size), dtype=torch.int32)
        spec = InputSpec("index_full", torch.int32, ("pages_full", program.page_size), "state")
        index = rewriter.add_input(spec, value)
        outcomes = []
        for node in [n for n in stage.graph.nodes if op_name(n) == "effc.attend.default"]:
            rewriter.set_argument(node, 6, index)
            outcomes.append(Outcome(rewriter.graph_place(node), "applied"))
        program.groups = tuple(replace(g, window=self.window, indexed=True) for g in program.groups)
        arguments: dict[str, object] = {"group": "full", "tokens": program.page_size}
        program.schedule = (ScheduleEntry("every", "evict_window", arguments),)
        return outcomes


def compiled(folder: Path, form: str, *, evict: bool) -> Executable:
    """The model with pages of a format, evicting or not."""
    policy = Policy()
    program, journal, _ = canonical_program(folder, policy)
    passes: list[Pass] = [InsertCache(form, PAGE), *lowering_passes(policy)]
    if evict:
        passes.append(EvictByWindow())
    PassManager(passes, check=2).run(program, journal)
    return Executable(program)


def plain_greedy(executable: Executable, prompt: list[int]) -> tuple[list[int], Session]:
    """One token at a time."""
    session = Session(executable, 1, len(prompt) + NEW, "cpu")
    tokens = [int(session.advance([prompt])[0].argmax())]
    while len(tokens) < NEW:
        tokens.append(int(session.advance([tokens[-1:]])[0].argmax()))
    return tokens, session


def drafted_greedy(
    executable: Executable, prompt: list[int], draft: Draft, *, cut: bool = True
) -> tuple[list[int], Session]:
    """Verify two drafted tokens per call; a draft never reaches past scheduled work."""
    session = Session(executable, 1, len(prompt) + NEW + 2, "cpu")
    tokens = [int(session.advance([prompt])[0].argmax())]
    while len(tokens) < NEW:
        fed = [tokens[-1], *draft(len(tokens))]
        if cut:
            fed = fed[: session.store.room(session.store.lengths[0])]
        best = session.step([fed], all_logits=True)[0].argmax(-1).tolist()
        accepted = next((i for i, t in enumerate(fed[1:]) if t != best[i]), len(fed) - 1)
        session.commit([accepted + 1])
        tokens += best[: accepted + 1]
    return tokens[:NEW], session


def informed(oracle: list[int], seed: int) -> Draft:
    """Drafts of which none, one or both tokens are what the oracle says next."""
    choice = random.Random(seed)

    def draft(known: int) -> list[int]:
        right = choice.randrange(3)
        return oracle[known : known + right] + [choice.randrange(3, VOCABULARY)] * (2 - right)

    return draft


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seam")
    Family("Llama").save(path)
    return path


@pytest.fixture(scope="module")
def evicting(folder: Path) -> Executable:
    return compiled(folder, "int8", evict=True)


def random_prompt(seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (37,), generator=generator).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_eviction_int8_pages_and_drafting_compose(evicting: Executable, seed: int) -> None:
    prompt = random_prompt(seed)
    plain, alone = plain_greedy(evicting, prompt)
    drafted, together = drafted_greedy(evicting, prompt, informed(plain, seed))
    assert drafted == plain
    counters = together.store.counters()
    assert counters.tokens_rolled_back > 10
    assert counters.tokens_evicted >= alone.store.counters().tokens_evicted > 3 * WINDOW


def test_eviction_changes_what_the_model_says(folder: Path, evicting: Executable) -> None:
    """Otherwise the experiment would show nothing."""
    whole = compiled(folder, "int8", evict=False)
    prompts = [random_prompt(seed) for seed in range(4)]
    assert any(plain_greedy(whole, p)[0] != plain_greedy(evicting, p)[0] for p in prompts)


def test_a_draft_that_reaches_past_scheduled_work_is_refused(evicting: Executable) -> None:
    """Without the cut some tokens would see what a plain run has evicted already."""
    prompt = random_prompt(0)
    plain, _ = plain_greedy(evicting, prompt)
    with pytest.raises(InternalError, match="reach past scheduled work"):
        drafted_greedy(evicting, prompt, informed(plain, 0), cut=False)


def test_evicted_int8_pages_hold_fewer_bytes(folder: Path, evicting: Executable) -> None:
    """Bytes held, not lengths: the window's pages in int8 with one fp16 scale each."""
    full = compiled(folder, "fp32", evict=False)
    prompt = random_prompt(1)
    held = {e: plain_greedy(e, prompt)[1].store.bytes()["held"] for e in (full, evicting)}
    heads, width, layers = 2, 16, 3
    token = layers * 2 * heads
    pages = -(-(len(prompt) + NEW - 1) // PAGE)
    assert held[full] == pages * PAGE * token * width * 4
    assert held[evicting] <= (WINDOW // PAGE + 2) * PAGE * token * (width + 2)
