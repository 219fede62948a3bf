import sys
import unicodedata

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stillroom.text.normal import normal_form, normal_form_expr

# What the form is about: white space, case, marks, widths, superscripts and subscripts.
ODD = st.sampled_from(
    list("  \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff")
    + list("aAıİIiſßẞΣσςΟHhẖK℡ﬁⅣ²³⁻₂₋½⅟〇𝐇①Å")
    + ["\u0301", "\u0307", "\u0327", "\u0331", "\u0345", "\ufffd", "\U000113c9", "\ua7f1", "\x00"]
)
KINDS = {"Zs", "Zl", "Zp", "Cc", "Cf"}
TEXTS = st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), ODD))


def forms(texts):
    return pl.DataFrame({"q": texts}, schema={"q": pl.String}).select(normal_form_expr("q"))["q"]


@given(st.lists(TEXTS, min_size=1))
def test_normal_form_expr_any_text_equals_reference(texts):
    assert forms(texts).to_list() == [normal_form(text) for text in texts]


@given(TEXTS)
def test_normal_form_of_a_form_is_itself(text):
    form = normal_form(text)
    assert normal_form(form) == form


def test_normal_form_expr_every_code_point_equals_reference():
    points = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]
    # Alone; between letters, where case and composition depend on neighbours; and between marks,
    # where combining classes show. U+0345 has the highest class, U+0334 the lowest.
    for around in [".{}.", "AΣ{}a ", "a\u0345{}\u0334 "]:
        every = [around.format(point) for point in points]
        texts = ["".join(every[i : i + 64]) for i in range(0, len(every), 64)]
        expected = [normal_form(text) for text in texts]
        assert forms(texts).to_list() == expected
        assert forms(expected).to_list() == expected


def test_normal_form_white_space_is_the_unicode_property():
    # Python's own \s and str.strip also take U+001C to U+001F, which Unicode calls separators
    # but not white space.
    apart = [c for c in map(chr, range(sys.maxunicode)) if unicodedata.category(c) in KINDS]
    spaces = {c for c in apart if normal_form(f"a{c}b") == "a b"}
    expected = set("\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000")
    assert spaces == expected | set(map(chr, range(0x2000, 0x200B)))
