"""Reading forms, over many texts."""

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from stillroom.models.structured import Form, read_form


class Rating(Form):
    level: int = Field(ge=1, le=10)
    reasoning: str


PROSE = st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.integers(1, 10), TEXT, PROSE, PROSE, st.booleans())
def test_written_form_is_read_back_from_any_prose(level, reasoning, before, after, escaped):
    written = json.dumps({"level": level, "reasoning": reasoning}, ensure_ascii=escaped)
    found = read_form(f"{before}{written}{after}", Rating)
    assert found == Rating(level=level, reasoning=reasoning)


@given(st.text())
def test_any_text_gives_a_valid_form_or_none(text):
    found = read_form(text, Rating)
    assert found is None or 1 <= found.level <= 10


@given(st.integers(1, 10), TEXT, st.data())
def test_form_that_was_cut_off_is_not_read(level, reasoning, data):
    written = json.dumps({"level": level, "reasoning": reasoning.replace("{", "")})
    cut = data.draw(st.integers(0, len(written) - 1))
    assert read_form(written[:cut], Rating) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON)
def test_other_json_is_no_form(value):
    assert read_form(json.dumps(value), Rating) is None
