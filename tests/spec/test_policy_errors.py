"""The full text of every refusal of a policy, as a user reads it."""

# ruff: noqa: E501 (the texts stand here as they are printed)

from __future__ import annotations

import pytest

from effc.diagnostics import PolicyError
from effc.spec.parse import parse_policy
from effc.spec.schema import MethodTable

CASES = [
    (
        "not TOML",
        """\
version = 1
[target
device = "cpu"
""",
        """\
policy.toml:2:8: error[E0201]: not valid TOML: the table's name is not closed
    2 | [target
      |        ^
help: add ']'""",
    ),
    (
        "text that ends too early",
        """\
version = 1
[target]
device =""",
        """\
policy.toml:3:9: error[E0201]: not valid TOML: there is no value here
    3 | device =
      |         ^
help: write one, or remove the key""",
    ),
    (
        "a key set twice",
        """\
version = 1
[target]
batch = 1
batch = 2
""",
        """\
policy.toml:4:1: error[E0201]: not valid TOML: 'batch' has a value already
    4 | batch = 2
      | ^^^^^
help: remove one of the two""",
    ),
    (
        "no version",
        """\
[target]
device = "cpu"
""",
        """\
policy.toml:1:1: error[E0208]: the policy does not say its version
    1 | [target]
      | ^
help: write 'version = 1' at the top""",
    ),
    (
        "version of another effc",
        """\
version = 2
new_key = true
""",
        """\
policy.toml:1:11: error[E0209]: version 2 of the policy language is not supported
    1 | version = 2
      |           ^
help: this effc reads version 1""",
    ),
    (
        "version that is no integer",
        """\
version = "1"
""",
        """\
policy.toml:1:11: error[E0205]: 'version' takes an integer, found "1"
    1 | version = "1"
      |           ^^^
help: write version = 1""",
    ),
    (
        "unknown table",
        """\
version = 1
[[quantise]]
where = "linear"
method = "rtn"
""",
        """\
policy.toml:2:3: error[E0202]: unknown key 'quantise' in the policy
    2 | [[quantise]]
      |   ^^^^^^^^
help: did you mean 'quantize'? allowed: draft, kv, quality, quantize, stream, target, tokens, version""",
    ),
    (
        "unknown key in a table",
        """\
version = 1
[target]
devise = "cpu"
""",
        """\
policy.toml:3:1: error[E0202]: unknown key 'devise' in [target]
    3 | devise = "cpu"
      | ^^^^^^
help: did you mean 'device'? allowed: allow_reference, batch, context, device, dtype, memory, threads""",
    ),
    (
        "unknown key far from every name",
        """\
version = 1
[quality]
zzz = 1
""",
        """\
policy.toml:3:1: error[E0202]: unknown key 'zzz' in [quality]
    3 | zzz = 1
      | ^^^
help: allowed: data, max_kl, max_perplexity_ratio, max_time_ratio, min_top1, tokens""",
    ),
    (
        "rules in one bracket",
        """\
version = 1
[quantize]
where = "linear"
method = "rtn"
""",
        """\
policy.toml:2:2: error[E0205]: 'quantize' takes a list of tables, found a table
    2 | [quantize]
      |  ^^^^^^^^
help: write [[quantize]], in two brackets, once per rule""",
    ),
    (
        "settings in two brackets",
        """\
version = 1
[[target]]
device = "cpu"
""",
        """\
policy.toml:2:3: error[E0205]: 'target' takes a table, found a list
    2 | [[target]]
      |   ^^^^^^
help: write [target], in one bracket, once""",
    ),
    (
        "unknown option",
        """\
version = 1
[[quantize]]
where = "linear"
method = "rtn"
bit = 4
""",
        """\
policy.toml:5:1: error[E0203]: unknown option 'bit' for method "rtn"
    5 | bit = 4
      | ^^^
help: did you mean 'bits'? allowed: activations, bits, gate, group, method, optional, symmetric, where""",
    ),
    (
        "unknown method",
        """\
version = 1
[[quantize]]
where = "linear"
method = "rtm"
bits = 99
""",
        """\
policy.toml:4:10: error[E0204]: unknown method "rtm" in [[quantize]]
    4 | method = "rtm"
      |          ^^^^^
help: did you mean 'rtn'? allowed: calibrated, rtn""",
    ),
    (
        "wrong type",
        """\
version = 1
[target]
context = "16k"
""",
        """\
policy.toml:3:11: error[E0205]: 'context' in [target] takes an integer >= 1, found "16k"
    3 | context = "16k"
      |           ^^^^^""",
    ),
    (
        "true is no integer",
        """\
version = 1
target = { batch = true }
""",
        """\
policy.toml:2:20: error[E0205]: 'batch' in [target] takes an integer >= 1, found true
    2 | target = { batch = true }
      |                    ^^^^""",
    ),
    (
        "number out of range",
        """\
version = 1
[quality]
max_kl = -0.5
""",
        """\
policy.toml:3:10: error[E0205]: 'max_kl' in [quality] takes a number >= 0, found -0.5
    3 | max_kl = -0.5
      |          ^^^^""",
    ),
    (
        "infinity",
        """\
version = 1
[quality]
max_perplexity_ratio = inf
""",
        """\
policy.toml:3:24: error[E0205]: 'max_perplexity_ratio' in [quality] takes a number >= 0, found inf
    3 | max_perplexity_ratio = inf
      |                        ^^^""",
    ),
    (
        "unknown device",
        """\
version = 1
[target]
device = "gpu"
""",
        """\
policy.toml:3:10: error[E0205]: 'device' in [target] takes "cpu", "cuda" or an architecture such as "cuda:sm90", found "gpu"
    3 | device = "gpu"
      |          ^^^^^
help: did you mean 'cuda'?""",
    ),
    (
        "unknown dtype",
        """\
version = 1
[target]
dtype = "bf16"
""",
        """\
policy.toml:3:9: error[E0205]: 'dtype' in [target] takes one of "float32", "float16", "bfloat16", found "bf16"
    3 | dtype = "bf16"
      |         ^^^^^^
help: did you mean 'bfloat16'? allowed: bfloat16, float16, float32""",
    ),
    (
        "memory without a unit",
        """\
version = 1
[target]
memory = 3000000000
""",
        """\
policy.toml:3:10: error[E0205]: 'memory' in [target] takes bytes with a unit, for example "3 GiB", found 3000000000
    3 | memory = 3000000000
      |          ^^^^^^^^^^""",
    ),
    (
        "memory of the wrong kind",
        """\
version = 1
[target]
memory = "25% of tokens"
""",
        """\
policy.toml:3:10: error[E0205]: 'memory' in [target] takes bytes with a unit, for example "3 GiB", found "25% of tokens"
    3 | memory = "25% of tokens"
      |          ^^^^^^^^^^^^^^^""",
    ),
    (
        "unknown unit",
        """\
version = 1
[target]
memory = "3 gib"
""",
        """\
policy.toml:3:13: error[E0207]: unknown unit 'gib'
    3 | memory = "3 gib"
      |             ^^^
help: did you mean 'GiB'? allowed: %, GB, GiB, KB, KiB, MB, MiB""",
    ),
    (
        "mixed units",
        """\
version = 1
[target]
memory = "3 GiB + 10% of weights"
""",
        """\
policy.toml:3:10: error[E0207]: '3 GiB + 10% of weights' mixes bytes and weights
    3 | memory = "3 GiB + 10% of weights"
      |          ^^^^^^^^^^^^^^^^^^^^^^^^
help: bytes go with bytes, tokens with tokens; plain numbers scale them""",
    ),
    (
        "option value not among the choices",
        """\
version = 1
[[quantize]]
where = "linear"
method = "rtn"
bits = 3
""",
        """\
policy.toml:5:8: error[E0205]: option 'bits' of method "rtn" takes 8 or 4, found 3
    5 | bits = 3
      |        ^""",
    ),
    (
        "option text near a choice",
        """\
version = 1
[[quantize]]
where = "linear"
method = "rtn"
activations = "int4"
""",
        """\
policy.toml:5:15: error[E0205]: option 'activations' of method "rtn" takes "source" or "int8", found "int4"
    5 | activations = "int4"
      |               ^^^^^^
help: did you mean 'int8'? allowed: int8, source""",
    ),
    (
        "option value that the method refuses",
        """\
version = 1
[[quantize]]
where = "linear"
method = "rtn"
group = 24
""",
        """\
policy.toml:5:9: error[E0205]: option 'group' of method "rtn" takes a power of two >= 16 or "row", found 24
    5 | group = 24
      |         ^^""",
    ),
    (
        "option of several types",
        """\
version = 1
[[quantize]]
where = "linear"
method = "rtn"
group = 32.0
""",
        """\
policy.toml:5:9: error[E0205]: option 'group' of method "rtn" takes an integer or "row", found 32.0
    5 | group = 32.0
      |         ^^^^""",
    ),
    (
        "required option",
        """\
version = 1
[[quantize]]
where = "linear"
method = "calibrated"
""",
        """\
policy.toml:2:3: error[E0208]: method "calibrated" needs the option 'samples'
    2 | [[quantize]]
      |   ^^^^^^^^
help: samples takes an integer""",
    ),
    (
        "missing selector",
        """\
version = 1
[[quantize]]
method = "rtn"
""",
        """\
policy.toml:2:3: error[E0208]: [[quantize]] needs the key 'where'
    2 | [[quantize]]
      |   ^^^^^^^^
help: add where = "linear", for example""",
    ),
    (
        "misspelt required key",
        """\
version = 1
[[quantize]]
wher = "linear"
method = "rtn"
""",
        """\
policy.toml:3:1: error[E0202]: unknown key 'wher' in [[quantize]]
    3 | wher = "linear"
      | ^^^^
help: did you mean 'where'?""",
    ),
    (
        "empty selector",
        """\
version = 1
[[quantize]]
where = ""
method = "rtn"
""",
        """\
policy.toml:3:10: error[E0206]: the selector is empty
    3 | where = ""
      |          ^
help: write "all" to select every site""",
    ),
    (
        "unknown word in a selector",
        """\
version = 1
[[quantize]]
where = "linear or embeding"
method = "rtn"
""",
        """\
policy.toml:3:20: error[E0206]: unknown word 'embeding' in the selector
    3 | where = "linear or embeding"
      |                    ^^^^^^^^
help: did you mean 'embedding'? allowed: all, attention, conv, embedding, experts, heads, kv_heads, layer, layers, linear, name, norm, params, stage, width""",
    ),
    (
        "misspelt attribute",
        """\
version = 1
[[quantize]]
where = "linear and layr >= 2"
method = "rtn"
""",
        """\
policy.toml:3:21: error[E0206]: unknown word 'layr' in the selector
    3 | where = "linear and layr >= 2"
      |                     ^^^^
help: did you mean 'layer'? allowed: all, attention, conv, embedding, experts, heads, kv_heads, layer, layers, linear, name, norm, params, stage, width""",
    ),
    (
        "single equals sign",
        """\
version = 1
[[quantize]]
where = "layer = 2"
method = "rtn"
""",
        """\
policy.toml:3:16: error[E0206]: unexpected '=' in the selector
    3 | where = "layer = 2"
      |                ^
help: compare with '=='""",
    ),
    (
        "open parenthesis",
        """\
version = 1
[[quantize]]
where = '(linear or norm'
method = "rtn"
""",
        """\
policy.toml:3:25: error[E0206]: the selector ends too early
    3 | where = '(linear or norm'
      |                         ^
help: expected ')'""",
    ),
    (
        "missing operator",
        """\
version = 1
[[quantize]]
where = "linear layer > 2"
method = "rtn"
""",
        """\
policy.toml:3:17: error[E0206]: unexpected 'layer' in the selector
    3 | where = "linear layer > 2"
      |                 ^^^^^
help: expected 'and', 'or' or the end""",
    ),
    (
        "bad regular expression",
        """\
version = 1
[[quantize]]
where = "name(/(/)"
method = "rtn"
""",
        """\
policy.toml:3:16: error[E0206]: not a regular expression: missing ), unterminated subpattern
    3 | where = "name(/(/)"
      |                ^
help: a backslash before a sign makes it an ordinary one""",
    ),
    (
        "bytes in a selector",
        """\
version = 1
[[quantize]]
where = "params > 2 GiB"
method = "rtn"
""",
        """\
policy.toml:3:19: error[E0206]: a selector compares plain numbers, not '2 GiB'
    3 | where = "params > 2 GiB"
      |                   ^^^^^
help: params counts single weights, the others count what they are called""",
    ),
    (
        "selector with escapes",
        r"""version = 1
[[quantize]]
where = "name(\"a\") nd linear"
method = "rtn"
""",
        r"""policy.toml:3:9: error[E0206]: unexpected 'nd' in the selector
    3 | where = "name(\"a\") nd linear"
      |         ^^^^^^^^^^^^^^^^^^^^^^^
help: expected 'and', 'or' or the end""",
    ),
    (
        "selector that is a list",
        """\
version = 1
[[quantize]]
where = ["linear"]
method = "rtn"
""",
        """\
policy.toml:3:9: error[E0205]: 'where' in [[quantize]] takes a selector such as "linear", found a list
    3 | where = ["linear"]
      |         ^^^^^^^^^^""",
    ),
    (
        "table without methods",
        """\
version = 1
[[kv]]
where = "attention"
method = "tri"
""",
        """\
policy.toml:4:10: error[E0212]: no method is registered for [[kv]]: this version of effc has none
    4 | method = "tri"
      |          ^^^^^
help: remove it, or install a package that adds one (entry point "kv.NAME" of the group "effc.methods")""",
    ),
    (
        "draft without methods",
        """\
version = 1
[draft]
verify = "exact"
""",
        """\
policy.toml:2:2: error[E0212]: no method is registered for [draft]: this version of effc has none
    2 | [draft]
      |  ^^^^^
help: remove it, or install a package that adds one (entry point "draft.NAME" of the group "effc.methods")""",
    ),
    (
        "a search for the method",
        """\
version = 1
[[quantize]]
where = "linear"
method = "auto"
""",
        """\
policy.toml:4:10: error[E0212]: method = "auto" asks for a search, which this version does not have
    4 | method = "auto"
      |          ^^^^^^
help: name a method of [[quantize]]: calibrated, rtn""",
    ),
    (
        "a gate without a bound",
        """\
version = 1
[[quantize]]
where = "linear"
method = "rtn"
gate = "revert"
""",
        """\
policy.toml:5:8: error[E0211]: gate = "revert" has no bound to hold the rule to
    5 | gate = "revert"
      |        ^^^^^^^^
help: set max_kl, max_perplexity_ratio, min_top1 or max_time_ratio in [quality], or remove the gate""",
    ),
    (
        "several mistakes, in the order of the text",
        """\
version = 1
[[quantize]]
where = "liner"
method = "rtn"
bits = 5
[target]
batch = 0
""",
        """\
policy.toml:3:10: error[E0206]: unknown word 'liner' in the selector
    3 | where = "liner"
      |          ^^^^^
help: did you mean 'linear'? allowed: all, attention, conv, embedding, experts, heads, kv_heads, layer, layers, linear, name, norm, params, stage, width
policy.toml:5:8: error[E0205]: option 'bits' of method "rtn" takes 8 or 4, found 5
    5 | bits = 5
      |        ^
policy.toml:7:9: error[E0205]: 'batch' in [target] takes an integer >= 1, found 0
    7 | batch = 0
      |         ^""",
    ),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [pytest.param(text, expected, id=name) for name, text, expected in CASES],
)
def test_refusal_text(text: str, expected: str, methods: MethodTable) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, file="policy.toml", methods=methods)
    assert str(caught.value) == expected
