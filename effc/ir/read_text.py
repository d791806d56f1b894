"""Printed programs read back.

    read_stages(print_program(program))  ->  the stages that were printed

The text is parsed, never run: every form that the printer writes becomes the entry that the same
node has in an artifact, and `effc.ir.serialize` reads it with all its checks. What the text does
not say is not there: fake values, and which pass made a node. Layers follow from module paths.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import NoReturn

import torch

from effc.diagnostics import PassError, Span
from effc.ir import literals
from effc.ir.program import Stage
from effc.ir.serialize import ROLES, stage_from_json
from effc.ir.types import SYMBOLIC, layer_of

_INFIX: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.FloorDiv: "floordiv",
    ast.Div: "truediv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.USub: "neg",
    ast.Not: "not_",
}
_CONSTANTS = {
    "dtype": literals.DTYPES,
    "layout": literals.LAYOUTS,
    "memory_format": literals.MEMORY_FORMATS,
}
_INPUT = re.compile(
    r"(?P<optional>optional )?(?P<kind>sequence |size )?"
    rf"(?P<role>{'|'.join(ROLES)}) (?P<name>\w+): "
    r"\[(?P<shape>.*)\] (?P<dtype>\w+)"
)
_TYPE = re.compile(rf"\[(?P<shape>.*)\] (?P<dtype>\w+)|(?P<size>{'|'.join(SYMBOLIC.values())})")
_SIZE = re.compile(r"(?:[^,(]|\((?:[^()]|\([^()]*\))*\))+")

Entry = dict[str, object]


def read_stages(text: str, file: str = "<program>") -> dict[str, Stage]:
    """The stages of a printed program, by name.

    Args:
        text: what `print_program` or `print_stage` returned, perhaps edited.
        file: the name to use in messages.

    Raises:
        PassError: E0412 at the line of whatever the printer does not write.
        ArtifactError: E0603, E0604 for what no artifact may hold.
    """
    reader = _TextReader(text, file)
    return {stage.name: stage for stage in reader.stages()}


_LAYER = re.compile(r"layer=(\d{1,6})")


class _TextReader:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.lines = text.splitlines()
        try:
            self.module = ast.parse(text)
            tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
            line = getattr(error, "lineno", None) or 1
            self._refuse(f"the text is no Python ({error.args[0]})", line)
        comments = (token for token in tokens if token.type == tokenize.COMMENT)
        self.comments = {token.start[0]: token.string[1:].strip() for token in comments}

    def stages(self) -> Iterator[Stage]:
        for item in self.module.body:
            if not isinstance(item, ast.FunctionDef):
                self._refuse("a program consists of functions, one per stage", item.lineno)
            yield stage_from_json(self._stage(item), f"{self.file}: {item.name}")

    def _stage(self, function: ast.FunctionDef) -> Entry:
        weights, *names = [argument.arg for argument in function.args.args] or [""]
        if weights != "weights":
            self._refuse("the first parameter is 'weights'", function.lineno)
        first = function.body[0].lineno
        header = {n: self.comments[n] for n in range(function.lineno, first) if n in self.comments}
        described = [self._input(text, line) for line, text in header.items() if ": [" in text]
        if [entry["name"] for entry in described] != names:
            self._refuse("one comment describes each input, in order", function.lineno)
        results = [text for text in header.values() if text.startswith("results ")]
        if len(results) != 1:
            self._refuse("one comment names the results: '# results a, b'", function.lineno)
        nodes = [_placeholder(entry) for entry in described]
        nodes += [self._node(statement) for statement in function.body]
        outputs = results[0].removeprefix("results ").split(", ")
        return {"name": function.name, "inputs": described, "outputs": outputs, "nodes": nodes}

    def _input(self, text: str, line: int) -> Entry:
        found = _INPUT.fullmatch(text)
        if found is None:
            self._refuse("an input is described as 'argument x: [B, 4] float32'", line)
        entry: Entry = {
            "name": found["name"],
            "dtype": found["dtype"],
            "shape": _shape(found["shape"]),
            "role": found["role"],
            "optional": found["optional"] is not None,
        }
        return entry | ({"kind": found["kind"].strip()} if found["kind"] else {})

    def _node(self, statement: ast.stmt) -> Entry:
        match statement:
            case ast.Return(value=ast.Tuple() as value):
                literal = self._literal(value)
                return {"name": "output", "op": "output", "target": "output", "args": [literal]}
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                entry = {"name": name} | self._value(value) | self._facts(statement.lineno)
                layer = entry.pop("layer", layer_of(str(entry.get("path", ""))))
                # A weight may serve several layers.
                layered = layer is not None and entry["op"] != "get_attr"
                return entry | ({"layer": layer} if layered else {})
        self._refuse("a statement assigns one value to one name, or returns", statement.lineno)

    def _value(self, value: ast.expr) -> Entry:
        """Kind, target and arguments of a node."""
        match value:
            case ast.Subscript(value=ast.Name(id="weights"), slice=ast.Constant(value=str(name))):
                return {"op": "get_attr", "target": name}
            case ast.Subscript(value=base, slice=index):
                return self._call("operator.getitem", [base, index])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _INFIX:
                return self._call(f"operator.{_INFIX[type(op)]}", [left, right])
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _INFIX:
                return self._call(f"operator.{_INFIX[type(op)]}", [left, right])
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _INFIX:
                return self._call(f"operator.{_INFIX[type(op)]}", [operand])
            case ast.Call(func=ast.Attribute() as function, args=args, keywords=keywords):
                entry = self._call(ast.unparse(function).removeprefix("torch.ops."), args)
                kwargs = {str(k.arg): self._literal(k.value) for k in keywords}
                return entry | ({"kwargs": kwargs} if kwargs else {})
        self._refuse(f"'{ast.unparse(value)[:60]}' is no operation of a program", value.lineno)

    def _call(self, target: str, args: list[ast.expr]) -> Entry:
        entry: Entry = {"op": "call_function", "target": target}
        return entry | ({"args": [self._literal(arg) for arg in args]} if args else {})

    def _literal(self, value: ast.expr) -> object:
        """An argument as `effc.ir.literals` writes it."""
        match value:
            case ast.Name(id=name):
                return {"node": name}
            case ast.Constant(value=str(text)):
                return {"text": text}
            case ast.Constant(value=bool() | int() | float() | None as plain):
                return plain
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.List(elts=items):
                return [self._literal(item) for item in items]
            case ast.Tuple(elts=items):
                return {"tuple": [self._literal(item) for item in items]}
            case ast.Slice(lower=lower, upper=upper, step=step):
                parts = (lower, upper, step)
                return {"slice": [None if p is None else self._literal(p) for p in parts]}
        if tagged := _tagged(value):
            return tagged
        self._refuse(f"'{ast.unparse(value)[:60]}' is no argument of a program", value.lineno)

    def _facts(self, line: int) -> Entry:
        """What the comment behind a node says: type, module path, layer, kernel."""
        facts: Entry = {}
        for part in filter(None, self.comments.get(line, "").split("  ")):
            typed = _TYPE.fullmatch(part)
            if part.startswith("kernel="):
                facts["kernel"] = part.removeprefix("kernel=")
            elif stated := _LAYER.fullmatch(part):
                facts["layer"] = int(stated[1])
            elif typed and typed["size"]:
                facts["dtype"] = typed["size"]
            elif typed:
                facts |= {"shape": _shape(typed["shape"]), "dtype": typed["dtype"]}
            else:
                facts["path"] = part
        return facts

    def _refuse(self, message: str, line: int) -> NoReturn:
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        start = len(source) - len(source.lstrip())
        where = Span(self.file, line, start + 1, max(1, len(source) - start), source)
        help = "see 'effc show OUT --text' for what a program looks like"
        raise PassError("E0412", message, where=where, help=help)


def _tagged(value: ast.expr) -> Entry | None:
    """What is not plain JSON: `torch.float16`, `float('inf')`, `stages.then_0(weights)`."""
    match value:
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(word))], keywords=[]):
            return {"float": word}
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="torch"), attr="device"),
            args=[ast.Constant(value=str(word))],
            keywords=[],
        ):
            return {"device": word}
        case ast.Attribute(value=ast.Name(id="torch"), attr=word):
            found = (kind for kind, known in _CONSTANTS.items() if word in known)
            return next(({kind: word} for kind in found), None)
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="stages" | "predicates" as table), attr=word),
            args=[ast.Name(id="weights")],
            keywords=[],
        ):
            return {table.removesuffix("s"): word}
    return None


def _placeholder(spec: Entry) -> Entry:
    entry: Entry = {"name": spec["name"], "op": "placeholder", "target": spec["name"]}
    if spec["optional"] or spec.get("kind") == "sequence":
        return entry
    if spec.get("kind") == "size":
        return entry | {"dtype": SYMBOLIC[torch.SymInt]}
    return entry | {"shape": spec["shape"], "dtype": spec["dtype"]}


def _shape(text: str) -> list[object]:
    sizes = [size.strip() for size in _SIZE.findall(text)]
    return [int(size) if size.isdigit() else size for size in sizes]
