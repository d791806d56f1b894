"""Compiled models in the EleutherAI evaluation harness, under the name "effc".

    import effc.lm_eval, lm_eval
    lm_eval.simple_evaluate(model="effc", model_args="path=out/", tasks=["lambada_openai"])

Importing this module registers the model. It needs the extra: pip install 'effc[lm-eval]'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM  # type: ignore[import-not-found]
from lm_eval.api.registry import register_model  # type: ignore[import-not-found]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # type: ignore[import-not-found]

from effc import api
from effc.diagnostics import EffcError
from effc.evaluate.answering import BATCH_TOKENS, batches
from effc.evaluate.continuations import log_likelihoods
from effc.evaluate.engine_answers import EngineModel, left_padded
from effc.ir.manifest import MANIFEST

DEFAULT_NEW_TOKENS = 256
"""Most tokens of an answer where the task does not say, as in the harness."""


@register_model("effc")
class EffcLM(TemplateLM):
    """A compiled model, behind the harness's interface.

    Args:
        path: an artifact; or a model folder or `.onnx` file, which is compiled under `spec`.
        spec: path of a policy, None for an empty one.
        model: the model itself, in place of a path.
        batch_tokens: most tokens of a batch of answers, padding and new ones included.
        batch_size, max_batch_size, device: the harness passes them to every model; `batch_tokens`
            and the artifact decide these here.

    Raises:
        EffcError: every refusal; E0414, the model has no tokenizer.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        spec: str | None = None,
        model: api.CompiledModel | None = None,
        batch_tokens: int = BATCH_TOKENS,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self._compiled = _open(path, spec) if model is None else model
        self._model = EngineModel(self._compiled.engine)
        self._batch_tokens = int(batch_tokens)
        self._words: Any = self._compiled.tokenizer
        if self._words is None:
            raise EffcError(
                "E0414",
                "the model has no tokenizer, so the words of a task mean nothing to it",
                where=self._model.info.source,
                help="put its tokenizer.json beside the model",
            )

    @property
    def eot_token_id(self) -> int:
        """The token that ends texts."""
        ends = self._model.info.eos
        return ends[0] if ends else 0

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context follows: the first token, else the one that ends texts."""
        first = self._model.info.bos
        return self.eot_token_id if first is None else first

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer where the harness keeps prepared requests."""
        return self._model.info.source

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Tokens of a text; None puts the first token in front unless the text begins with it."""
        ids = _ids(self._words.encode(string, add_special_tokens=add_special_tokens is not False))
        doubled = add_special_tokens is None and ids[:2] == [self._model.info.bos] * 2
        return ids[1:] if doubled else ids

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-likelihood of whole texts, in windows as wide as the model's context."""
        return [self._text_likelihood(request.args[0]) for request in requests]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, each up to the first of its stop strings."""
        answers = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        for group in groups.values():
            texts = [requests[index].args[0] for index in group]
            said = self._said(texts, requests[group[0]].args[1])
            for index, answer in zip(group, said, strict=True):
                answers[index] = answer
        return answers

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return log_likelihoods(self._model, [(context, said) for _, context, said in requests])

    def _text_likelihood(self, text: str) -> float:
        ids = self.tok_encode(text, add_special_tokens=False)
        width = self._model.info.context or max(1, len(ids))
        windows = get_rolling_token_windows(ids, self.prefix_token_id, width, context_len=1)
        pairs = list(map(make_disjoint_window, windows))
        return sum(value for value, _ in log_likelihoods(self._model, pairs))

    def _said(self, texts: Sequence[str], arguments: dict[str, Any]) -> list[str]:
        """Answers to prompts with the same arguments."""
        options = dict(arguments)
        until = options.pop("until", None) or []
        stops = [until] if isinstance(until, str) else [stop for stop in until if stop]
        new_tokens = int(options.pop("max_gen_toks", DEFAULT_NEW_TOKENS))
        options["do_sample"] = bool(options.get("do_sample") and options.get("temperature", 1))
        if not options["do_sample"]:
            options = {"do_sample": False}
        prompts = [self._cut(self.tok_encode(text), new_tokens) for text in texts]
        said = [""] * len(texts)
        for batch in batches(list(map(len, prompts)), new_tokens, self._batch_tokens):
            ids, mask = left_padded([prompts[index] for index in batch])
            result = self._compiled.generate_result(
                ids,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                stop_strings=stops or None,
                **options,
            )
            for index, tokens in zip(batch, result.tokens, strict=True):
                said[index] = _before(self._words.decode(tokens), stops)
        return said

    def _cut(self, prompt: list[int], new_tokens: int) -> list[int]:
        """The end of a prompt, so that the answer has room."""
        context = self._model.info.context
        return prompt if context is None else prompt[-max(1, context - new_tokens) :]


def _open(path: str | Path | None, spec: str | None) -> api.CompiledModel:
    if path is None:
        raise EffcError("E0101", "no model is named", help="--model_args path=OUT")
    is_artifact = (Path(path) / MANIFEST).is_file()
    return api.load(path) if is_artifact else api.optimize(Path(path), spec)


def _ids(encoded: Any) -> list[int]:
    """Token ids from either library: an `Encoding`, or a list."""
    return list(getattr(encoded, "ids", encoded))


def _before(text: str, stops: Iterable[str]) -> str:
    """A text up to the first stop string in it."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
