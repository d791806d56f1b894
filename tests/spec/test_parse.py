"""Reading policies that are right: values, defaults, equality, and the way back to text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from effc.diagnostics import Span
from effc.spec.parse import dump_policy, load_policy, parse_policy, policy_from_dict
from effc.spec.quantity import Quantity
from effc.spec.schema import (
    VERSION,
    MethodTable,
    Policy,
    QualitySpec,
    QuantizeRule,
    TargetSpec,
)
from effc.spec.selector import Selector

TEXT = """\
version = 1  # of the language

[target]
device  = "cuda:sm90"
memory  = "3 GiB"
context = 16384
batch   = 2
dtype   = "bfloat16"
threads = 2
allow_reference = true

[quality]
data    = "heldout.txt"
tokens  = 512
max_kl  = 0.05
max_perplexity_ratio = 1

[[quantize]]
where  = "linear or embedding"
method = "rtn"
bits   = 8
group  = "row"

[[quantize]]
where    = '''
    name("*.mlp.*")
    and layer in 2..-3'''
method   = "calibrated"
optional = true
samples  = 16
damping  = 1
"""

EXPECTED = Policy(
    target=TargetSpec(
        device="cuda:sm90",
        memory=Quantity.parse("3 GiB"),
        context=16384,
        batch=2,
        dtype="bfloat16",
        threads=2,
        allow_reference=True,
    ),
    quality=QualitySpec("heldout.txt", 512, 0.05, 1.0),
    quantize=(
        QuantizeRule(
            where=Selector.parse("linear or embedding"),
            method="rtn",
            options={"bits": 8, "group": "row"},
        ),
        QuantizeRule(
            where=Selector.parse('name("*.mlp.*") and layer in 2..-3'),
            method="calibrated",
            options={"samples": 16, "damping": 1.0},
            optional=True,
            index=1,
        ),
    ),
)


def test_every_key_is_read(methods: MethodTable) -> None:
    policy = parse_policy(TEXT, file="policy.toml", methods=methods)
    assert policy == EXPECTED
    assert (policy.source, policy.text) == ("policy.toml", TEXT)
    assert isinstance(policy.quantize[1].options["damping"], float)


def test_rules_know_their_places(methods: MethodTable) -> None:
    rule = parse_policy(TEXT, file="policy.toml", methods=methods).quantize[0]
    assert rule.span == Span("policy.toml", 18, 3, 8, "[[quantize]]")
    where = 'where  = "linear or embedding"'
    assert rule.where_span == Span("policy.toml", 19, 10, 21, where)


def test_defaults(methods: MethodTable) -> None:
    policy = parse_policy("version = 1", methods=methods)
    assert policy == Policy()
    assert policy.target == TargetSpec("cpu", None, None, 1, None, None, False)
    assert policy.quality is None


def test_an_empty_quality_table_still_asks_for_measuring(methods: MethodTable) -> None:
    assert parse_policy("version = 1\n[quality]", methods=methods).quality == QualitySpec()


def test_dict_and_text_give_the_same_policy(methods: MethodTable) -> None:
    rule = {"where": "linear", "method": "rtn", "bits": 8, "activations": None}
    policy = policy_from_dict({"target": {"batch": 2, "memory": None}, "quantize": [rule]}, methods)
    text = (
        'version = 1\n[target]\nbatch = 2\n[[quantize]]\nwhere = "linear"\nmethod = "rtn"\nbits = 8'
    )
    assert policy == parse_policy(text, methods=methods)
    assert parse_policy(policy.text, methods=methods) == policy
    assert policy.source is None


def test_every_way_to_name_a_policy(tmp_path: Path, methods: MethodTable) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert load_policy(path, methods) == load_policy(str(path), methods) == EXPECTED
    assert load_policy(path, methods).source == str(path)
    assert load_policy(EXPECTED, methods) is EXPECTED
    assert load_policy({}, methods) == load_policy(None, methods) == Policy()


def test_dump_is_canonical_text() -> None:
    assert dump_policy(EXPECTED) == (
        'version = 1\n\n[target]\ndevice = "cuda:sm90"\nmemory = "3 GiB"\ncontext = 16384\n'
        'batch = 2\ndtype = "bfloat16"\nthreads = 2\nallow_reference = true\n\n'
        '[quality]\ndata = "heldout.txt"\ntokens = 512\nmax_kl = 0.05\n'
        "max_perplexity_ratio = 1.0\n\n"
        '[[quantize]]\nwhere = "linear or embedding"\nmethod = "rtn"\nbits = 8\ngroup = "row"\n\n'
        '[[quantize]]\nwhere = "name(\\"*.mlp.*\\") and layer in 2..-3"\nmethod = "calibrated"\n'
        "optional = true\nsamples = 16\ndamping = 1.0\n"
    )


def test_reading_a_policy_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from effc.spec.parse import parse_policy\n"
        f"text = 'version = {VERSION}\\n[target]\\nmemory = \"3 GiB\"'\n"
        "parse_policy(text, methods={})\n"
        "assert 'lark' in sys.modules\n"
        "heavy = {'torch', 'numpy', 'transformers'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_the_empty_policy_loads_no_lark() -> None:
    code = (
        "import sys\n"
        "from effc.spec.parse import load_policy\n"
        "load_policy(None, {})\n"
        "assert 'lark' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
