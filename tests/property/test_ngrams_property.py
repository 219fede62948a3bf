"""The n-gram kernel against plain Python."""

import random
import re
import sys
import unicodedata
from dataclasses import astuple

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillroom.kernels import ngrams
from stillroom.kernels.ngrams import Ngrams, words
from stillroom.kernels.ngrams_reference import PlainNgrams
from stillroom.kernels.ngrams_reference import words as plain_words

TOKENS = pl.List(pl.UInt32)

# Few words, so that runs are shared; words of 8, 9 and more bytes, other scripts, all cases.
WORDS = ["a", "B", "the", "Straße", "x²", "ﬁ", "Ａ", "longword", "longwords", "longwords2", "1"]
WORDS += ["_", "πr", "日本", "e\u0301", "antidisestablishment", "antidisestablishmenT", "٣", "½"]
GAPS = [" ", ", ", "\n", "-", "\u00a0", "…", "", "\u0301 ", " \u0301", "´", " ½", "\u3000"]
texts = st.lists(
    st.one_of(
        st.none(),
        st.text(max_size=12),
        st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=25).map(
            lambda parts: "".join(w + g for w, g in parts)
        ),
    ),
    max_size=8,
)
tokens = st.lists(
    st.one_of(st.none(), st.lists(st.sampled_from([0, 1, 2, 2**32 - 1]), max_size=12)), max_size=8
)
options = {
    "n": st.integers(1, 6),
    "run": st.sampled_from(["first", "longest"]),
    "short": st.sampled_from(["whole", "none"]),
}


def plain(items, others, *, n, run, short):
    return [astuple(o) for o in PlainNgrams(items, n, short=short).find(others, run=run)]


def split(texts):
    return [None if text is None else plain_words(text) for text in texts]


@given(items=texts, others=texts, **options)
@example(items=["a a a a a a"], others=["a a a a a a a a"], n=2, run="longest", short="whole")
def test_words_are_found_as_plain_python_finds_them(items, others, n, run, short):
    index = Ngrams(pl.Series(items, dtype=pl.String), n, short=short)
    found = index.find(pl.Series(others, dtype=pl.String), run=run)
    assert found.rows() == plain(split(items), split(others), n=n, run=run, short=short)


@given(items=tokens, others=tokens, **options)
def test_tokens_are_found_as_plain_python_finds_them(items, others, n, run, short):
    index = Ngrams(pl.Series(items, dtype=TOKENS), n, short=short)
    found = index.find(pl.Series(others, dtype=TOKENS), run=run)
    assert found.rows() == plain(items, others, n=n, run=run, short=short)


@pytest.mark.parametrize("run", ["first", "longest"])
def test_many_texts_give_the_same_in_any_parts_and_by_any_workers(run, monkeypatch):
    draw = random.Random(7)
    # A skewed vocabulary, some of it beyond ASCII, so that most texts share something by chance.
    vocabulary = [f"w{i}" for i in range(40)] + [f"größe{i}" for i in range(10)] + ["w" * 70]

    def text():
        size = draw.choice([0, 1, 2, 5, 30, 200])
        chosen = (vocabulary[int(len(vocabulary) * draw.random() ** 3)] for _ in range(size))
        return " ".join(chosen)

    items, others = [text() for _ in range(60)], [text() for _ in range(400)]
    others += [items[3], items[3][1:], "x " + items[5].upper()]
    expected = plain(split(items), split(others), n=4, run=run, short="whole")
    assert 100 < len(expected) < len(others)
    index = Ngrams(pl.Series(items), 4)
    pieces = [pl.Series(others[i : i + 7]) for i in range(0, len(others), 7)]
    chunked = pl.concat(pieces, rechunk=False)
    padded = pl.Series(["a", *others]).slice(1)
    for part, workers in [(50_000, 1), (1, 1), (13, 4)]:
        monkeypatch.setattr(ngrams, "PART", part)
        for series in (pl.Series(others), chunked, padded):
            assert index.find(series, run=run, workers=workers).rows() == expected


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="words are of Unicode 14.0")
def test_every_character_is_a_letter_or_not_as_in_python():
    beyond = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    for start in range(0, len(beyond), 4096):
        form = " ".join(map(chr, beyond[start : start + 4096])).lower()
        assert ngrams._grams.words(form) == re.findall(r"\w+", form)


@given(st.text())
def test_words_of_any_text_are_those_of_plain_python(text):
    if unicodedata.unidata_version == "14.0.0":
        assert words(text) == plain_words(text)
    assert all(words(word) == [word] for word in words(text))
