"""Programs that update variables modulo 7, and how they are carried out step by step.

a 3 b 5 c 2 d 0 ; s1 c *= 4 ; s2 d -= a ; s3 a += b ; end        a program
s3 a += b : 3 + 5 gives a 1 ;                                    a step of its solution
check s3 3 + 5 gives 1 ok ;                                      a check of this step
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from effc.evaluate.tasks.traces import Habit, Narrator, Trace

MODULUS = 7
MAX_STEPS = 16
VARIABLES: tuple[str, ...] = ("a", "b", "c", "d")
OPERATORS = ("+", "-", "*")


@dataclass(frozen=True)
class Statement:
    """`target operator= operand`: an update modulo 7; the operand is a variable or a digit."""

    target: str
    operator: str
    operand: str

    def apply(self, left: int, right: int) -> int:
        """Return the new value of the target."""
        raw = {"+": left + right, "-": left - right, "*": left * right}[self.operator]
        return raw % MODULUS


@dataclass(frozen=True)
class Program:
    """Initial values of the variables, and statements to carry out in order.

    Every statement can be undone: no variable is subtracted from itself, products have a digit
    from 2 to 6, and 7 is prime. So the final state is as random as the initial one, and who does
    not know the initial values can only guess.
    """

    initial: tuple[int, ...]
    statements: tuple[Statement, ...]

    @property
    def text(self) -> str:
        lines = [
            f"s{number} {line.target} {line.operator}= {line.operand} ;"
            for number, line in enumerate(self.statements, 1)
        ]
        return " ".join([state_text(self.initial), ";", *lines, "end"])

    @staticmethod
    def parse(text: str) -> Program:
        """Read what `text` wrote."""
        state, *lines = text.removesuffix(" ; end").split(" ; ")
        statements = []
        for line in lines:
            _, target, operator, operand = line.split()
            statements.append(Statement(target, operator.removesuffix("="), operand))
        return Program(tuple(map(int, state.split()[1::2])), tuple(statements))

    def run(self, first: int = 0) -> str:
        """Return the final state as text; statements before index `first` are left out."""
        values = dict(zip(VARIABLES, self.initial, strict=True))
        for line in self.statements[first:]:
            operand = values[line.operand] if line.operand in values else int(line.operand)
            values[line.target] = line.apply(values[line.target], operand)
        return state_text(tuple(values.values()))


def draw_program(rng: Generator, steps: int) -> Program:
    """Draw a program of `steps` statements; about half of the operands are variables."""
    initial = tuple(rng.integers(MODULUS, size=len(VARIABLES)).tolist())
    return Program(initial, tuple(_draw_statement(rng) for _ in range(steps)))


def _draw_statement(rng: Generator) -> Statement:
    target, operator, by_name = rng.integers(len(VARIABLES)), rng.integers(5), rng.integers(3)
    if operator == 4:
        return Statement(VARIABLES[target], "*", str(rng.integers(2, MODULUS)))
    sign = OPERATORS[operator % 2]
    if by_name:
        other = (target + rng.integers(1, len(VARIABLES))) % len(VARIABLES)
        return Statement(VARIABLES[target], sign, VARIABLES[other])
    return Statement(VARIABLES[target], sign, str(rng.integers(1, MODULUS)))


def solve_program(program: Program, habit: Habit, rng: Generator) -> Trace:
    """Carry out a program statement by statement."""
    narrator = Narrator(habit, rng)
    values = dict(zip(VARIABLES, program.initial, strict=True))
    writers: dict[str, int] = {}
    for number, line in enumerate(program.statements, 1):
        left = values[line.target]
        right = values[line.operand] if line.operand in values else int(line.operand)
        value = line.apply(left, right)
        slip = (value + int(rng.integers(1, MODULUS))) % MODULUS
        formula = f"{left} {line.operator} {right} gives"
        head = f"s{number} {line.target} {line.operator}= {line.operand} : {formula} {line.target}"
        sources = [writers[name] for name in (line.target, line.operand) if name in writers]
        writers[line.target] = narrator.work(
            f"{head} {value} ;", f"{head} {slip} ;", f"check s{number} {formula} {value}", *sources
        )
        values[line.target] = value
    final = state_text(tuple(values.values()))
    return narrator.close(f"end {final} ;", final, *writers.values())


def state_text(values: tuple[int, ...]) -> str:
    return " ".join(f"{name} {value}" for name, value in zip(VARIABLES, values, strict=True))
