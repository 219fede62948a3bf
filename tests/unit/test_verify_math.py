"""What our own rules decide, without a worker."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

import stillroom
from stillroom.verifiers import Task, verifier
from stillroom.verifiers.math import MathVerifier, bare, number


@pytest.fixture
def maths():
    with verifier("math") as opened:
        yield opened


SAME = [
    ("72", "72"),
    ("72.", "72"),
    ("72.0", "72"),
    ("+72", "72"),
    ("$72$", "72"),
    (r"\(72\)", "72"),
    ("**72**", "72"),
    (r"\text{72}", "72"),
    (r"\boxed{72}", "72"),
    ("x = 72", "72"),
    ("72", "x = 72"),
    ("-0", "0"),
    ("−5", "-5"),
    ("1,234", "1234"),
    ("1 234", "1234"),
    (r"1\,234", "1234"),
    ("1{,}234", "1234"),
    (r"10\!,\!000", "10000"),
    ("$5", "5"),
    (r"\$5.00", "5"),
    ("5 dollars", "$5"),
    ("-$5", "-5"),
    ("5 cm", "5"),
    ("5 m", "5"),
    (r"5 \text{ cm}^2", "5"),
    ("5 square feet", "5"),
    ("12 apples", "12"),
    ("72^\\circ", "72"),
    ("72°", r"72^{\circ}"),
    (r"90 \text{ degrees}", r"90^\circ"),
    ("0.5", r"\frac{1}{2}"),
    ("1/2", r"\frac{1}{2}"),
    ("2/4", "1/2"),
    (".5", "1/2"),
    (r"\dfrac12", r"\frac{1}{2}"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"1\frac{1}{2}", "1.5"),
    ("1 1/2", "3/2"),
    ("1.5e3", "1500"),
    (r"1.5 \times 10^{3}", "1500"),
    ("1.5 × 10^3", "1500"),
    ("10^{6}", "1,000,000"),
    ("5 million", "5000000"),
    ("$2.5 million", "2500000"),
    ("10%", "10"),
    ("10", r"10\%"),
    ("10%", "0.1"),
    ("0.1", "10%"),
    ("12.5 percent", "12.5"),
    ("0.333333", "1/3"),
    ("0.666667", r"\frac{2}{3}"),
    ("4210_{7}", "4210_7"),
    (r"4210_{\text{seven}}", "4210_7"),
    ("Evelyn", r"\text{Evelyn}"),
    ("evelyn", "Evelyn"),
    ("B", r"\text{(B)}"),
    ("(B)", r"\text{(B)}"),
    ("Yes", "true"),
    (r"\left( 3, 5 \right)", "(3,5)"),
]

OTHER = [
    ("73", "72"),
    ("-72", "72"),
    ("72", "720"),
    ("7.2", "72"),
    ("11/2", "1 1/2"),
    ("1/3", "0.333"),
    ("0.3333", "1/3"),
    ("1.00", r"\frac{4036082}{4036081}"),
    ("0.1%", "0.1"),
    ("0.01", "10%"),
    ("1e-7", "2e-7"),
    ("1e400", "5"),
    ("4210_8", "4210_7"),
    ("4211_7", "4210_7"),
    ("[3,5]", "(3,5)"),
    ("[3,5)", "(3,5]"),
    ("Bob", "Evelyn"),
    ("C", r"\text{(B)}"),
    ("no", "yes"),
]

UNDECIDED = [
    ("4210", "4210_7"),
    ("5 cm", "5 feet"),
    ("100 cents", "$1"),
    ("next Friday", "Friday"),
]


@pytest.mark.parametrize(("answer", "reference"), SAME)
def test_math_same_value_is_correct_without_a_worker(maths, answer, reference):
    [verdict] = maths.verify([Task(rf"\boxed{{{answer}}}", reference)])
    assert verdict.outcome == "correct"
    assert verdict.rule == "boxed"
    assert maths.pool.pids() == []


@pytest.mark.parametrize(("answer", "reference"), OTHER)
def test_math_other_value_is_incorrect_without_a_worker(maths, answer, reference):
    [verdict] = maths.verify([Task(rf"\boxed{{{answer}}}", reference)])
    assert verdict.outcome == "incorrect"
    assert maths.pool.pids() == []


@pytest.mark.parametrize(("answer", "reference"), UNDECIDED)
def test_math_doubtful_pair_is_undecided_and_says_why(maths, answer, reference):
    [verdict] = maths.verify([Task(rf"\boxed{{{answer}}}", reference)])
    assert verdict.outcome == "unparsed"
    assert verdict.detail
    assert maths.pool.pids() == []


PROSE = [
    r"$p=5$ and all primes $p \equiv \pm 1 \pmod 5$",
    r"All positive integers $n$ such that $\nu_{p}(n) \neq 1$ for all prime $p \equiv 1(\bmod 5)$",
    "Each of the 3 gets 4 apples, so that 2 are left, and with the 3 of Ann that makes 5",
    "The sum is 5.",
    "$a$ is not $5$",
    "{'price': 0.0149, 'at_once': 5, 'note': 'exercise the option'}",
    "5 of the men do it",
]


@pytest.mark.parametrize("reference", PROSE)
def test_math_prose_is_never_right_by_a_number_in_it(maths, reference):
    for answer, known in ((r"\boxed{5}", reference), (rf"\boxed{{{reference}}}", "5")):
        [verdict] = maths.verify([Task(answer, known)])
        assert verdict.outcome == "unparsed"
        assert verdict.detail == "words that only a reader can judge"
    assert maths.pool.pids() == []
    [itself] = maths.verify([Task(rf"\boxed{{{reference}}}", reference)])
    assert itself.outcome == "correct"


@pytest.mark.parametrize("reference", [None, "", "  \n"])
def test_math_no_reference_is_neither_correct_nor_wrong(maths, reference):
    [verdict] = maths.verify([Task(r"\boxed{5}", reference)])
    assert (verdict.outcome, verdict.extracted) == ("no_reference", "5")


def test_math_no_final_answer_is_unparsed(maths):
    [verdict] = maths.verify([Task("I give up.", "5")])
    assert (verdict.outcome, verdict.extracted, verdict.rule) == ("unparsed", None, None)
    assert verdict.detail == "no final answer"


def test_math_very_long_answer_is_unparsed(maths):
    [verdict] = maths.verify([Task(r"\boxed{" + "1" * 5000 + "}", "5")])
    assert verdict.outcome == "unparsed"
    assert "5000 characters" in verdict.detail


def test_math_verdict_names_verifier_and_engine(maths):
    [verdict] = maths.verify([Task("#### 5", "5")])
    assert verdict.verifier == maths.name
    assert maths.name.startswith("math/5 math-verify 0.9")
    assert verdict.rule == "hashes"


def test_math_no_tasks_gives_no_verdicts(maths):
    assert maths.verify([]) == []


def test_math_parent_never_imports_sympy():
    script = (
        "import sys; from stillroom.verifiers import Task, verifier\n"
        "with verifier('math') as maths: print(maths.verify([Task('#### 5', '5')])[0].outcome)\n"
        "print(*{'sympy', 'math_verify', 'polars'} & set(sys.modules))"
    )
    path = str(Path(stillroom.__file__).parents[1])
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["correct"]


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5", 5, ""),
        ("1,250.50", Fraction(2501, 2), ""),
        (r"1\frac{1}{2} \text{ cups}", Fraction(3, 2), "cup"),
        ("3 square inches", 3, "squareinche"),
        ("12%", 12, ""),
    ],
)
def test_number_gives_value_and_unit(text, value, unit):
    found = number(text)
    assert (found.value, found.unit) == (value, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2x",
        "5 ab",
        "3 or 4",
        "1,2",
        "1/0",
        r"2\pi",
        "5!",
        "3 pi",
        "3 sin x",
        "(5)",
        "1e9999",
    ],
)
def test_number_text_that_is_none_gives_none(text):
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"$\boxed{\dfrac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\text{(B)}", "(B)"),
        (r"$a$ and $b$", r"$a$ and $b$"),
        (r"\text{a} + \text{b}", r"\text{a} + \text{b}"),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}1 \\ 2\end{pmatrix}"),
        (r"\{1,2\}", r"\{1,2\}"),
        ("{{5}}", "5"),
        (r"\frac34", r"\frac{3}{4}"),
    ],
)
def test_bare_removes_wrappers_only(text, expected):
    assert bare(text) == expected


def test_math_verifier_without_workers_is_refused():
    with pytest.raises(ValueError, match="workers is 0"):
        MathVerifier(workers=0)
