"""What holds for every problem, whatever its family, level, index, seed and flaw."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.families import (
    FAMILIES,
    FLAWS,
    LEVELS,
    SPLITS,
    STYLES,
    plain,
    problem,
    split_of,
    stream,
    trace,
    verify,
)

LONGEST_TRACE = 450  # characters; about 250 tokens

places = st.fixed_dictionaries(
    {
        "level": st.sampled_from(LEVELS),
        "index": st.integers(0, 10**9),
        "split": st.sampled_from(SPLITS),
        "seed": st.integers(0, 10**6),
    }
)
families = st.sampled_from(sorted(FAMILIES))


@given(family=families, place=places)
@settings(max_examples=200)
def test_problem_is_a_function_of_its_arguments_and_keeps_to_its_split(family, place) -> None:
    item = problem(family, **place)
    assert item == problem(family, **place)
    assert split_of(item.question) == place["split"]
    assert verify(item, item.reference)


@given(family=families, place=places, style=st.sampled_from(STYLES), seed=st.integers(0, 10**6))
@settings(max_examples=200)
def test_every_trace_is_right_and_short(family, place, style, seed) -> None:
    item = problem(family, **place)
    reasoning, answer = trace(item, style, seed=seed)
    assert (reasoning, answer) == trace(item, style, seed=seed)
    box = re.fullmatch(r"(?s).*The answer is \\boxed\{(.*)\}\.", answer)
    assert box
    assert verify(item, box[1])
    assert len(reasoning) + len(answer) <= LONGEST_TRACE


@given(
    chosen=st.lists(families, min_size=1, max_size=4, unique=True),
    split=st.sampled_from(SPLITS),
    seed=st.integers(0, 10**6),
    flaws=st.dictionaries(st.sampled_from(FLAWS), st.floats(0, 1 / 6), max_size=6),
    index=st.integers(0, 10**6),
)
@settings(max_examples=200)
def test_stream_is_addressable_and_every_flawed_question_keeps_to_its_split(
    chosen, split, seed, flaws, index
) -> None:
    items = stream(chosen, LEVELS, split, seed, flaws, length=10**6 + 1)
    item = items[index]
    assert item == items[index]
    assert item.index == index
    assert item.family == chosen[index % len(chosen)]
    assert split_of(item.question) == split
    assert item.flaw is None or flaws[item.flaw] > 0
    assert verify(item, item.reference) or item.flaw == "wrong_reference"


@given(text=st.text(max_size=200), numerals=st.permutations(["12", "7", "450"]))
def test_split_sees_numerals_only_and_not_their_order(text, numerals) -> None:
    words = re.sub(r"[0-9]", "", text)
    assert split_of(f"{words} {' and '.join(numerals)}") == split_of("450 7 12")


@given(text=st.text(max_size=60))
def test_plain_is_idempotent(text) -> None:
    assert plain(plain(text)) == plain(text)


@given(family=families, place=places, answer=st.text(max_size=60))
def test_verifier_survives_any_text(family, place, answer) -> None:
    assert verify(problem(family, **place), answer) in (True, False)
