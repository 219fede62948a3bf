"""Which texts share a run of words with an item."""

import polars as pl
import pytest

from stillroom.kernels.ngrams import Ngrams, quote

ITEMS = [
    "A red fox and a brown hen cross the road at noon.",
    None,
    "Why?",
    "The hen and the fox: a red fox and a brown hen cross the road at night!",
]


def find(items, texts, n, *, run="first", short="whole"):
    return Ngrams(pl.Series(items), n, short=short).find(pl.Series(texts), run=run).rows()


def test_first_run_of_the_first_item_is_told_with_its_place():
    text = "It is said that A RED Fox, and a brown hen cross the road at night."
    assert find(ITEMS, [text], 5) == [(0, 0, 4, 5, 8)]
    assert quote(text, 4, 5) == "a red fox and a"


def test_longest_run_may_be_of_a_later_item():
    text = "It is said that A RED Fox, and a brown hen cross the road at night."
    assert find(ITEMS, [text], 5, run="longest") == [(0, 3, 4, 12, 8)]


def test_short_text_is_found_if_it_is_all_of_a_short_item():
    assert find(ITEMS, ["why", "Why not?", "a red fox"], 5) == [(0, 2, 0, 1, 1)]
    assert find(ITEMS, ["why", "Why not?", "a red fox"], 5, short="none") == []


def test_texts_without_words_share_nothing():
    assert find(["...", "", None], ["...", "", None, "?!"], 1) == []


def test_words_are_those_of_the_normal_form():
    items = ["Ｆｉｎｄ ﬁve x² and Straße No 7"]
    assert find(items, ["find FIVE X^2; and STRAßE"], 3) == [(0, 0, 0, 3, 4)]


def test_tokens_are_compared_as_they_are():
    dtype = pl.List(pl.UInt32)
    index = Ngrams(pl.Series([[1, 2, 3, 4], [7]], dtype=dtype), 3, short="none")
    texts = pl.Series([[9, 2, 3, 4], None, [7], [], [1, 2, 4, 3]], dtype=dtype)
    assert index.find(texts).rows() == [(0, 0, 1, 3, 1)]


def test_n_below_one_is_refused():
    with pytest.raises(ValueError, match="n is 0; expected 1 or above"):
        Ngrams(pl.Series(["x"]), 0)
