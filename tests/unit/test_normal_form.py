import polars as pl
import pytest

from stillroom.text.normal import normal_form, normal_form_expr

CASES = [
    ("", ""),
    (" \n\t ", ""),
    ("What  is\n\n2 + 2 ?", "what is 2 + 2 ?"),
    ("\u00a0What\u2003is\u3000it", "what is it"),
    ("ＡＢＣ１２", "abc12"),
    ("ﬁnd x", "find x"),
    ("2²", "2^2"),
    ("10⁻²³", "10^-23".replace("-", "\u2212")),
    ("x₁₀", "x_10"),
    ("1½ cups", "1 1⁄2 cups"),
    ("ΟΔΟΣ", "οδοσ"),
    ("Cafe\u0301", "café"),
    ("CAFÉ", "café"),
    ("İ", "i\u0307"),
    ("a\u200bb", "a\u200bb"),  # zero-width characters are not white space
    ("x\U000113c9", "x\ufffd"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_normal_form_case_gives_documented_form(text, expected):
    assert normal_form(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [("2²", "22"), ("1½", "11⁄2"), ("x+1", "x-1"), ("a b", "ab"), ("naïve", "naive")],
)
def test_normal_form_different_questions_stay_different(one, other):
    assert normal_form(one) != normal_form(other)


def test_normal_form_expr_null_stays_null_and_column_keeps_its_name():
    table = pl.DataFrame({"q": [None, " A ", "É", None]}).select(normal_form_expr("q"))
    assert table.to_dict(as_series=False) == {"q": [None, "a", "é", None]}


def test_normal_form_lone_surrogate_is_kept():
    assert normal_form("A \ud800") == "a \ud800"
