"""Joins by Indel similarity, against plain Python and against rapidfuzz."""

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
