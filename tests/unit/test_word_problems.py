"""The shipped word problems: their shape, and that every answer follows from its own check."""

import ast
import json
import operator
from collections import Counter, defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src/stillroom/steps/source/word_problems.jsonl"
KEYS = {"id", "domain", "topic", "difficulty", "question", "answer", "check"}
MAX_CHARS = 1_000
MAX_EXPONENT = 100

CALLS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "min": min,
    "max": max,
    "sum": sum,
    "len": len,
    "round": round,
    "sorted": sorted,
    "range": range,
    "Fraction": Fraction,
}
BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def evaluate(source: str) -> Any:
    """Compute a check, with exact decimals and nothing beyond the whitelisted grammar."""
    if len(source) > MAX_CHARS:
        raise ValueError("check is too long")
    return _walk(ast.parse(source, mode="eval").body)


def _walk(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=float() as value):
            return Fraction(str(value))
        case ast.Constant(value=int() | str() as value):
            return value
        case ast.List(elts=items):
            return [_walk(item) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_walk(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, _walk(left), _walk(right))
        case ast.Compare(left=left, ops=ops, comparators=rest):
            values = [_walk(left), *(_walk(item) for item in rest)]
            pairs = zip(ops, values, values[1:], strict=False)
            if not all(type(op) in COMPARE for op in ops):
                raise ValueError("comparison is not allowed")
            return all(COMPARE[type(op)](a, b) for op, a, b in pairs)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in CALLS:
            return CALLS[name](*(_walk(arg) for arg in args))
    raise ValueError(f"{ast.unparse(node)!r} is not allowed")


def _binary(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Mod) and isinstance(left, str):
        raise ValueError("string formatting is not allowed")
    if isinstance(op, ast.Mult) and any(isinstance(side, str | list) for side in (left, right)):
        times = right if isinstance(left, str | list) else left
        if not isinstance(times, int) or times > MAX_EXPONENT:
            raise ValueError("repetition is too large")
    if isinstance(op, ast.Div):
        return Fraction(left) / Fraction(right)
    if isinstance(op, ast.Pow):
        if abs(right) > MAX_EXPONENT:
            raise ValueError("exponent is too large")
        return left**right
    if type(op) not in BINARY:
        raise ValueError("operator is not allowed")
    return BINARY[type(op)](left, right)


def agrees(value: Any, answer: str) -> bool:
    """Whether a computed value is the written answer; only square roots need a tolerance."""
    if isinstance(value, bool | str):
        return str(value) == answer
    if isinstance(value, float):
        return abs(value - float(Fraction(answer))) < 1e-9
    return bool(Fraction(value) == Fraction(answer))


def squash(question: str) -> str:
    """The question without case or white space."""
    return "".join(question.casefold().split())


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SOURCE.read_text(encoding="utf-8").splitlines()]


def test_two_hundred_rows_with_unique_ids(rows: list[dict[str, Any]]) -> None:
    assert [row["id"] for row in rows] == [f"wp-{n:03d}" for n in range(1, 201)]


def test_every_row_has_the_required_keys(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert set(row) == KEYS, row["id"]
        assert type(row["difficulty"]) is int, row["id"]
        for key in KEYS - {"difficulty"}:
            assert isinstance(row[key], str), row["id"]
            assert row[key], row["id"]
            assert row[key] == row[key].strip(), row["id"]


def test_domains_and_difficulties(rows: list[dict[str, Any]]) -> None:
    assert Counter(row["domain"] for row in rows) == {"math": 120, "science": 50, "code": 30}
    assert {row["difficulty"] for row in rows} == {1, 2, 3, 4, 5}


def test_every_check_gives_the_answer(rows: list[dict[str, Any]]) -> None:
    wrong = [row["id"] for row in rows if not agrees(evaluate(row["check"]), row["answer"])]
    assert wrong == []


def test_exact_repeats_agree(rows: list[dict[str, Any]]) -> None:
    answers: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        answers[squash(row["question"])].append(row["answer"])
    repeats = [group for group in answers.values() if len(group) > 1]
    assert [len(group) for group in repeats] == [2, 2, 2]
    assert all(len(set(group)) == 1 for group in repeats)


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os')",
        "(1).real",
        "open('x')",
        "[x for x in range(3)]",
        "'%s' % 1",
        "sorted([1], key=len)",
        "9**9**9",
        "'a' * 1000",
        "None",
        "1 in [1]",
    ],
)
def test_the_evaluator_refuses_anything_else(source: str) -> None:
    with pytest.raises(ValueError, match=r"not allowed|too large"):
        evaluate(source)


@pytest.mark.parametrize(
    ("source", "answer", "same"),
    [
        ("7 / 2", "3.5", True),
        ("0.1 + 0.2", "0.3", True),
        ("Fraction(2, 4)", "1/2", True),
        ("2 > 1", "True", True),
        ("2 * 3", "7", False),
        ("2 > 1", "1", False),
    ],
)
def test_agreement(source: str, answer: str, same: bool) -> None:
    assert agrees(evaluate(source), answer) is same
