"""The MinHash kernel against plain Python."""

import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.kernels import minhash, minhash_reference
from stillroom.kernels.minhash import MinHash

WORDS = ["a", "B", "the", "Straße", "x²", "longwords", "日本", "e\u0301", "twelve bytes+", "\t\x1c"]
# What the normal form is about: the kernel gets it piece by piece, cut at spaces.
ODD = list("  \t\n\x1c\x85\xa0\u1680\u2028\u3000aıİΣσςẖ²³⁻₂½⅟´Å\u0301\u0327\u0345\ufffd\u0897")
texts = st.lists(
    st.one_of(
        st.none(),
        st.text(ODD, max_size=9),
        st.text(max_size=20),
        st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
        st.lists(st.sampled_from(WORDS), max_size=5).map("\n".join),
    ),
    max_size=12,
)
hashers = st.builds(
    MinHash,
    size=st.integers(1, 5),
    unit=st.sampled_from(["words", "characters"]),
    bands=st.integers(1, 7),
    rows=st.integers(1, 6),
    seed=st.sampled_from([0, 42, 2**64 - 1]),
)


def plain_keys(texts, how):
    fields = {"size": how.size, "unit": how.unit, "bands": how.bands, "rows": how.rows}
    return [minhash_reference.keys(t or "", seed=how.seed, **fields) for t in texts]


@given(texts=texts, how=hashers)
def test_keys_are_those_of_plain_python(texts, how):
    found = how.keys(pl.Series(texts, dtype=pl.String)).tolist()
    n = len(texts)
    assert [[found[b * n + i] for b in range(how.bands)] for i in range(n)] == plain_keys(
        texts, how
    )


@given(texts=texts, how=hashers, rule=st.sampled_from(["greedy", "chains"]))
def test_lost_texts_are_those_of_plain_python(texts, how, rule):
    found = how.lost(pl.Series(texts, dtype=pl.String), rule=rule)
    expected = getattr(minhash_reference, rule)(plain_keys(texts, how))
    assert dict(found.rows()) == expected


@given(texts=texts, how=hashers)
def test_similarity_is_that_of_the_sets(texts, how):
    others = texts[1:] + texts[:1]
    found = how.similarity(*(pl.Series(t, dtype=pl.String) for t in (texts, others)))
    sets = [set(minhash_reference.shingles(t or "", size=how.size, unit=how.unit)) for t in texts]
    for share, a, b in zip(found, sets, sets[1:] + sets[:1], strict=True):
        assert share == pytest.approx(100 * len(a & b) / len(a | b) if a | b else 0)


def near_copies(draw, n):
    vocabulary = [f"w{i}" for i in range(200)] + ["größe", "x²"]
    texts = []
    for _ in range(n):
        words = [draw.choice(vocabulary) for _ in range(draw.choice([0, 1, 3, 20, 60]))]
        if texts and draw.random() < 0.4:
            words = draw.choice(texts).split()
            for _ in range(draw.choice([0, 1, 2])):
                if words:
                    words[draw.randrange(len(words))] = draw.choice(vocabulary)
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("rule", ["greedy", "chains"])
def test_many_texts_give_the_same_in_any_parts_and_by_any_workers(rule, monkeypatch):
    texts = near_copies(random.Random(3), 500)
    how = MinHash(bands=8, rows=3)
    expected = getattr(minhash_reference, rule)(plain_keys(texts, how))
    assert 100 < len(expected) < 400
    chunked = pl.concat([pl.Series(texts[i : i + 31]) for i in range(0, 500, 31)], rechunk=False)
    for part, workers in [(20_000, 1), (1, 3), (7, 4)]:
        monkeypatch.setattr(minhash, "PART", part)
        for series in (pl.Series(texts), chunked):
            assert dict(how.lost(series, rule=rule, workers=workers).rows()) == expected


def test_hashes_agree_as_often_as_the_sets_are_similar():
    """Over 4,096 hashes the share that agrees lies near the Jaccard similarity, for any of it."""
    how = MinHash(bands=4096, rows=1, size=1)
    for shared in range(0, 101, 10):
        a = " ".join(f"a{i}" for i in range(100))
        b = " ".join([f"a{i}" for i in range(shared)] + [f"b{i}" for i in range(100 - shared)])
        keys = how.keys(pl.Series([a, b]))
        agree = sum(keys[2 * j] == keys[2 * j + 1] for j in range(4096)) / 4096
        assert abs(agree - shared / (200 - shared)) < 0.04
