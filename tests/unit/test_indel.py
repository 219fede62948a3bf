"""Joins by Indel similarity, against plain Python and against rapidfuzz."""

import polars as pl
import pytest

from stillroom.kernels import indel


def test_join_names_the_best_item_and_among_equals_the_lowest():
    items = ["a cat sat", "a cat sits", "nothing of the kind", "a cat sat"]
    found = indel.join(["a cat sat", "a cat sits!", "dog"], items, 75)
    assert found["text"].to_list() == [0, 1]
    assert found["item"].to_list() == [0, 1]
    assert found["score"].to_list() == [100.0, pytest.approx(95.238, abs=1e-3)]


@pytest.mark.parametrize("threshold", [49.9, 100.1, 75.00001])
def test_thresholds_out_of_range_are_refused_with_their_value(threshold):
    with pytest.raises(ValueError, match=f"threshold is {threshold}; expected percent, 50 to 100"):
        indel.join(["a"], ["a"], threshold)


def test_lone_surrogates_and_nulls_are_refused():
    with pytest.raises(ValueError, match="no valid Unicode"):
        indel.join(["\ud800"], ["a"], 75)
    with pytest.raises(ValueError, match="text 1 is null; expected texts only"):
        indel.dedup(["a", None], 75)


def test_similarity_of_a_lone_surrogate_is_refused():
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        indel.similarity("\ud800", "a")


def test_nothing_to_compare_finds_nothing():
    assert indel.join([], ["a"], 75).is_empty()
    assert indel.join(["a"], [], 75).is_empty()
    assert indel.dedup([], 75).is_empty()
    assert list(indel.pairs([], 75)) == []


def test_a_tick_that_raises_stops_the_work():
    texts = [f"{n:b} hens and {n} cows went to market" for n in range(20_000)]

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indel.dedup(texts, 60, tick=stop, workers=2)


def test_ticks_add_up_to_the_texts():
    texts = [f"{n} hens and {n * n} cows" for n in range(4_000)]
    for work in (
        lambda tick: indel.dedup(texts, 90, tick=tick),
        lambda tick: indel.join(texts, texts[:100], 75, tick=tick),
        lambda tick: list(indel.pairs(texts, 90, tick=tick)),
    ):
        ticks = []
        work(ticks.append)
        assert sum(ticks) == len(texts)


def test_order_that_does_not_name_each_text_is_refused():
    with pytest.raises(ValueError, match="the order does not name each text"):
        indel.dedup(["a", "b"], 75, order=pl.Series([0], dtype=pl.UInt32))
