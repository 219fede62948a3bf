"""Real references verify against themselves, survive edits that keep the value, and no others."""

import json
import random
import re
from collections import Counter

import pytest
import zstandard

from stillroom.verifiers import Task, verifier
from stillroom.verifiers.math import number

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def maths():
    with verifier("math", workers=2) as opened:
        yield opened


def references(data, name):
    with zstandard.open(data / "fixtures" / f"{name}.jsonl.zst", "rt") as lines:
        found = [json.loads(line)["answer"] for line in lines]
    return [answer for answer in found if answer]  # two rows of math_train have none


@pytest.mark.parametrize("name", ["gsm8k_train", "math_train"])
def test_math_every_real_reference_verifies_against_itself(maths, data, name):
    answers = references(data, name)
    verdicts = maths.verify([Task(rf"so \boxed{{{answer}}}.", answer) for answer in answers])
    failed = [
        (answer, verdict)
        for answer, verdict in zip(answers, verdicts, strict=True)
        if verdict.outcome != "correct"
    ]
    assert failed == []


def integer(text):
    return re.fullmatch(r"-?\d+", text) is not None


def fraction(text):
    return re.fullmatch(r"-?\\frac\{\d+\}\{\d+\}", text) is not None


def decimal(text):
    return re.fullmatch(r"-?\d*\.\d+", text) is not None


def anything(text):
    return True


def simple(text):
    # Not where text or several parts would change their meaning.
    return not re.search(r"[,_=]|text|mbox|\\%|circ|\\\$|begin", text)


def pair(text):
    return re.fullmatch(r"\(-?\d+, ?-?\d+\)", text) is not None


def based(text):
    return re.fullmatch(r"\d+_\{?\d+\}?", text) is not None


def tops(text, change):
    top, bottom = map(int, re.findall(r"\d+", text))
    return change(top, bottom, "-" if text.startswith("-") else "")


KEEP = {
    "as it is": (anything, str),
    "dollar signs": (anything, "${}$".format),
    "double dollar signs": (anything, "$${}$$".format),
    "round LaTeX brackets": (anything, r"\({}\)".format),
    "bold": (anything, "**{}**".format),
    "full stop": (anything, "{}.".format),
    "space around": (anything, "  {} ".format),
    "display style": (anything, r"\displaystyle {}".format),
    "braces around": (anything, "{{{}}}".format),
    "nested box": (anything, r"\boxed{{{}}}".format),
    "named x": (simple, "x = {}".format),
    "thin space before": (anything, r"\,{}".format),
    "dfrac": (lambda t: r"\frac" in t, lambda t: t.replace(r"\frac", r"\dfrac")),
    "left and right": (pair, lambda t: t.replace("(", r"\left(").replace(")", r"\right)")),
    "spaces in a pair": (pair, lambda t: t.replace(",", " ,  ")),
    "plus sign": (lambda t: integer(t) and t[0] != "-", "+{}".format),
    "zero decimals": (integer, "{}.0".format),
    "over one": (integer, "{}/1".format),
    "integer as a fraction": (integer, r"\frac{{{}}}{{1}}".format),
    "text around": (integer, r"\text{{{}}}".format),
    "mathrm around": (integer, r"\mathrm{{{}}}".format),
    "unit in text": (integer, r"{}\text{{ cm}}".format),
    "unit in words": (integer, "{} apples".format),
    "square unit": (integer, r"{}\text{{ cm}}^2".format),
    "currency": (lambda t: integer(t) and t[0] != "-", r"\${}".format),
    "degrees": (integer, r"{}^\circ".format),
    "thousands": (lambda t: integer(t) and len(t) > 3, lambda t: f"{int(t):,}"),
    "thousands in braces": (
        lambda t: integer(t) and len(t) > 3,
        lambda t: f"{int(t):,}".replace(",", "{,}"),
    ),
    "scientific": (integer, r"{} \times 10^{{0}}".format),
    "unicode minus": (lambda t: t.startswith("-"), lambda t: t.replace("-", "−")),
    "slash": (fraction, lambda t: tops(t, lambda a, b, s: f"{s}{a}/{b}")),
    "twice top and bottom": (
        fraction,
        lambda t: tops(t, lambda a, b, s: rf"{s}\frac{{{2 * a}}}{{{2 * b}}}"),
    ),
    "minus on top": (fraction, lambda t: tops(t, lambda a, b, s: rf"\frac{{{s}{a}}}{{{b}}}")),
    "ten decimals": (fraction, lambda t: tops(t, lambda a, b, s: f"{s}{a / b:.10f}")),
    "trailing zero": (decimal, "{}0".format),
    "times one": (simple, "1 \\cdot ({})".format),
    "plus zero": (simple, "({}) + 0".format),
    "base in braces": (based, lambda t: re.sub(r"_\{?(\d+)\}?", r"_{\1}", t)),
}

CHANGE = {
    "one more": (integer, lambda t: str(int(t) + 1)),
    "one less": (integer, lambda t: str(int(t) - 1)),
    "other sign": (
        lambda t: integer(t) and t != "0",
        lambda t: t[1:] if t[0] == "-" else f"-{t}",
    ),
    "digit added": (lambda t: integer(t) and t != "0", "{}0".format),
    "tenth": (lambda t: integer(t) and t != "0", lambda t: str(int(t) / 10)),
    "half more": (integer, "{}.5".format),
    "a variable": (integer, "{}x".format),
    "times pi": (lambda t: integer(t) and t != "0", r"{}\pi".format),
    "factorial": (lambda t: integer(t) and int(t) > 2, "{}!".format),
    "list with another": (integer, lambda t: f"{t}, {int(t) + 3}"),
    "squared": (lambda t: integer(t) and abs(int(t)) > 1, "{}^2".format),
    "upside down": (
        lambda t: fraction(t) and len(set(re.findall(r"\d+", t))) == 2,
        lambda t: tops(t, lambda a, b, s: rf"{s}\frac{{{b}}}{{{a}}}"),
    ),
    "top one more": (fraction, lambda t: tops(t, lambda a, b, s: rf"{s}\frac{{{a + 1}}}{{{b}}}")),
    "two decimals": (
        lambda t: fraction(t) and tops(t, lambda a, b, s: a * 100 % b != 0),
        lambda t: tops(t, lambda a, b, s: f"{s}{a / b:.2f}"),
    ),
    "pair turned": (
        lambda t: pair(t) and len(set(re.findall(r"-?\d+", t))) == 2,
        lambda t: "({1}, {0})".format(*re.findall(r"-?\d+", t)),
    ),
    "point to interval": (pair, lambda t: t.replace("(", "[").replace(")", "]")),
    "half-open": (pair, lambda t: t.replace(")", "]")),
    "other base": (based, lambda t: re.sub(r"_\{?(\d+)\}?", lambda b: f"_{int(b[1]) + 1}", t)),
    "no base": (based, lambda t: t.partition("_")[0]),
    "plus one": (simple, "{} + 1".format),
    "times two": (lambda t: simple(t) and number(t) is None, "2({})".format),
    "minus": (lambda t: simple(t) and number(t) is None and r"\pm" not in t, "-({})".format),
    "root": (lambda t: integer(t) and int(t) > 1, r"\sqrt{{{}}}".format),
}


def edited(data, edits, count):
    """Take up to `count` different references for each kind of edit, the same on every run."""
    answers = sorted(set(references(data, "math_train")))
    for kind, (fits, edit) in edits.items():
        fitting = [answer for answer in answers if fits(answer)]
        for answer in random.Random(kind).sample(fitting, min(count, len(fitting))):
            yield kind, answer, edit(answer)


@pytest.mark.slow
def test_math_edits_that_keep_the_value_are_accepted(maths, data):
    cases = list(edited(data, KEEP, 60))
    verdicts = maths.verify([Task(rf"\boxed{{{text}}}", answer) for _, answer, text in cases])
    missed = [
        (case, verdict.outcome, verdict.detail)
        for case, verdict in zip(cases, verdicts, strict=True)
        if verdict.outcome != "correct"
    ]
    show("kept the value", cases, [case for case, *_ in missed])
    for line in missed:
        print(*line)
    assert len(missed) <= 0.01 * len(cases), missed


@pytest.mark.slow
def test_math_edits_that_change_the_value_are_not_accepted(maths, data):
    cases = list(edited(data, CHANGE, 60))
    verdicts = maths.verify([Task(rf"\boxed{{{text}}}", answer) for _, answer, text in cases])
    accepted = [
        case for case, verdict in zip(cases, verdicts, strict=True) if verdict.outcome == "correct"
    ]
    show("changed the value", cases, accepted)
    print(Counter(verdict.outcome for verdict in verdicts), accepted)
    assert len(accepted) <= 0.01 * len(cases), accepted


def show(title, cases, wrong):
    """Print the table of kinds; seen with `pytest -s`."""
    total, bad = Counter(kind for kind, *_ in cases), Counter(kind for kind, *_ in wrong)
    print(f"\n{title}: {len(cases)} pairs, {len(total)} kinds, {len(wrong)} judged otherwise")
    for kind, count in total.items():
        print(f"  {kind:24} {count:4} {bad[kind]:4}")
