"""The tokenizer of the task families: one word, one token.

Task texts are words separated by single spaces. A list of words is therefore the whole tokenizer,
and what a model sees of a text is its words' places in that list.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD, IMAGE = "<|bos|>", "<|eos|>", "<|pad|>", "<image>"
BOS_ID, EOS_ID, PAD_ID = 0, 1, 2
SPECIALS = (BOS, EOS, PAD)


def vocabulary(words: Sequence[str], specials: Sequence[str] = SPECIALS) -> list[str]:
    """Return all tokens in the order of their ids: specials, `<image>` if asked for, words.

    Raises:
        ValueError: A word occurs twice, is empty or holds white space.
    """
    first = [*specials, *([IMAGE] if IMAGE in words else [])]
    tokens = [*first, *(word for word in words if word != IMAGE)]
    if repeated := sorted({token for token in tokens if tokens.count(token) > 1}):
        raise ValueError(f"words must differ from one another and from the specials: {repeated}")
    if unfit := [word for word in words if word.split() != [word]]:
        raise ValueError(f"a word is not empty and holds no white space: {unfit}")
    return tokens


def word_tokenizer(
    words: Sequence[str], specials: Sequence[str] = SPECIALS
) -> PreTrainedTokenizerFast:
    """Build a tokenizer that splits at white space and looks every word up.

    Texts get bos in front; decoding joins words with single spaces. Unknown words are an error
    of the `tokenizers` library: there is no token for them.

    Args:
        words: The words, in the order of their ids; `<image>` among them becomes a special token.
        specials: The tokens of the ids 0, 1, 2: beginning, end, padding.
    """
    tokens = vocabulary(words, specials)
    bos, eos, pad = specials
    # `unk_token` names no token, so that an unknown word is refused instead of read as another.
    model = models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokens.index(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens=[IMAGE] if IMAGE in words else [],
    )
