"""Policies that are refused before any model is looked at."""

from __future__ import annotations

from pathlib import Path

from tests.messages.case import Case, rule, table, write

TOML = (
    Case("a table's bracket stays open", 'version = 1\n[target\ndevice = "cpu"\n'),
    Case("an equals sign is missing", "version 1\n"),
    Case("a value is missing", "version = 1\n[target]\ndevice =\n"),
    Case("a text has no quotes", "version = 1\n[target]\ndevice = cpu\n"),
    Case("a text has no closing quote", rule(where='"linear')),
    Case("a number has a unit", table("target", "context = 16k")),
    Case("a switch is capitalized", table("target", "allow_reference = True")),
    Case("a list stays open", table("draft", 'drafters = ["ngram",\nselect = "ucb"')),
    Case("two keys share a line", table("target", 'device = "cpu" batch = 1')),
    Case("a key is set twice", "version = 1\n[target]\nbatch = 1\nbatch = 2\n"),
    Case("a table is opened twice", "version = 1\n[target]\nbatch = 1\n[target]\nthreads = 2\n"),
)

KEYS = (
    Case("the version is missing", '[target]\ndevice = "cpu"\n'),
    Case("the version is a later one", "version = 2\n"),
    Case("the version is a text", 'version = "1"\n'),
    Case("a table is misspelt", rule().replace("quantize", "quantise")),
    Case("a key is misspelt", table("target", 'devise = "cpu"')),
    Case("a key is unlike any other", table("quality", "zzz = 1")),
    Case("a rule stands in one bracket", rule().replace("[[quantize]]", "[quantize]")),
    Case("a table stands in two brackets", table("[target]", "batch = 1")),
    Case("an option is misspelt", rule("bit = 4")),
    Case("a method is misspelt", rule(method='"rtm"')),
    Case("a method is of another table", rule(method='"int8"')),
    Case("a rule has no selector", "version = 1\n[[quantize]]\nmethod = 'rtn'\n"),
    Case("a rule has no method", "version = 1\n[[quantize]]\nwhere = 'linear'\n"),
    Case("a rule's selector is misspelt", "version = 1\n[[quantize]]\nwher = 'linear'\n"
                                          "method = 'rtn'\n"),
    Case("vision tokens cannot be selected yet", "version = 1\n[[tokens]]\nwhere = 'all'\n"
                                                 "method = 'id'\nkeep = 64\n"),
)  # fmt: skip

CONTRADICTIONS = (
    Case("a gate has no bound", rule('gate = "fail"')),
    Case("a gate is a word of its own", rule('gate = "stop"\n\n[quality]\nmax_kl = 0.05')),
    Case("a rule on the cache says nothing", "version = 1\n[[kv]]\nwhere = 'attention'\n"),
    Case("a cache is stored by a misspelt method", "version = 1\n[[kv]]\nwhere = 'attention'\n"
                                                   "store = { method = 'int88' }\n"),
    Case("a cache is stored with an unknown option", "version = 1\n[[kv]]\nwhere = 'attention'\n"
                                                     "store = { method = 'int8', bits = 8 }\n"),
    Case("a cache evicts by a method that is not there", "version = 1\n[[kv]]\n"
         "where = 'attention'\nmethod = 'snap'\nbudget = 256\n"),
    Case("the planner is asked to choose", rule(method='"auto"')),
    Case("drafting is not there", table("draft", 'drafters = ["ngram"]')),
)  # fmt: skip

VALUES = (
    Case("a number is a text", table("target", 'context = "16k"')),
    Case("a number is true", table("target", "batch = true")),
    Case("a number is negative", table("quality", "max_kl = -0.5")),
    Case("a number is infinite", table("quality", "max_perplexity_ratio = inf")),
    Case("a whole number has a fraction", rule("group = 32.5")),
    Case("a device is unknown", table("target", 'device = "gpu"')),
    Case("an element type is abbreviated", table("target", 'dtype = "bf16"')),
    Case("a number of bits is not offered", rule("bits = 5")),
    Case("a group is no power of two", rule("group = 24")),
    Case("a word is close to another", rule('activations = "int4"')),
    Case("a selector is a list", rule(where='["linear"]')),
    Case("a switch is a text", rule('optional = "yes"')),
    Case("several things are wrong", rule("bits = 5\n\n[target]\nbatch = 0", where='"liner"')),
)

SELECTORS = (
    Case("a selector is empty", rule(where='""')),
    Case("a kind of site is misspelt", rule(where='"linear or embeding"')),
    Case("an attribute is misspelt", rule(where='"linear and layr >= 2"')),
    Case("a comparison has one equals sign", rule(where='"layer = 2"')),
    Case("a parenthesis stays open", rule(where="'(linear or norm'")),
    Case("an and is missing", rule(where='"linear layer > 2"')),
    Case("a range has no end", rule(where='"layer in 2.."')),
    Case("a regular expression is wrong", rule(where='"name(/(/)"')),
    Case("a name is compared", rule(where="'name == \"lm_head\"'")),
    Case("a kind is compared", rule(where="'kind == \"linear\"'")),
    Case("conditions are joined by a sign", rule(where='"linear && layer > 2"')),
    Case("parameters are compared with bytes", rule(where='"params > 2 GiB"')),
    Case("a selector is long and wrong at its end", rule(
        where='"linear and layer in 2..-3 and not name(\\"*.down_proj\\") and heads >"')),
)  # fmt: skip

QUANTITIES = (
    Case("a unit is misspelt", table("target", 'memory = "3 gib"')),
    Case("bytes have no unit", table("target", "memory = 3000000000")),
    Case("bytes and shares are added", table("target", 'memory = "3 GiB + 10% of weights"')),
    Case("a share stands for bytes", table("target", 'memory = "25% of tokens"')),
    Case("a function is unknown", table("target", 'memory = "maximum(1 GiB, 2 GiB)"')),
    Case("a quantity ends too early", table("target", 'memory = "3 *"')),
)


def _folder(folder: Path) -> None:
    (folder / "policy.toml").mkdir()


FILES = (
    Case("the policy does not exist", command="effc check polcy.toml"),
    Case("the policy is a folder", spoil=_folder),
    Case("the policy is not UTF-8", spoil=write("policy.toml", b"version = 1 # caf\xe9\n")),
    Case("the policy is a model", command="effc check model/model.safetensors"),
    Case("a preset is misspelt", rule(), "effc check policy.toml --preset balancd"),
    Case("a key is misspelt after set", rule(), "effc check policy.toml --set target.contex=512"),
    Case("a value is wrong after set", rule(), "effc check policy.toml --set quantize.0.bits=five"),
    Case(
        "a rule does not exist after set", rule(), "effc check policy.toml --set quantize.3.bits=8"
    ),
    Case("set has no value", rule(), "effc check policy.toml --set quantize.0.bits"),
)
