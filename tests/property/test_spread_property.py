"""Farthest first: the kernel against a plain search, and `take: {spread: ...}`."""

import json
import tempfile
from array import array
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kitchen import Kitchen, rows

from stillroom.kernels.minhash import MinHash
from stillroom.kernels.vectors import Matrix, farthest, signatures
from stillroom.recipe.load import read_recipe

# Sums of multiples of 1/8 are exact in any order, so that the plain search has the same ties.
NUMBER = st.integers(-2, 2).map(lambda n: n / 8)
VECTORS = st.integers(1, 12).flatmap(
    lambda w: st.lists(st.lists(NUMBER, min_size=w, max_size=w), min_size=1, max_size=30)
)
WORDS = st.lists(st.sampled_from(["a", "b", "c d", "e"]), max_size=6).map(" ".join)


def plain_choice(n, k, alike, blank):
    """Choose in plain Python."""
    chosen = []
    while len(chosen) < k:
        left = [i for i in range(n) if i not in chosen]
        known = [i for i in left if not blank(i)]
        others = [j for j in chosen if not blank(j)]
        nearest = {i: max((alike(i, j) for j in others), default=-2) for i in known}
        chosen.append(min(known, key=lambda i: (nearest[i], i)) if known else left[0])
    return chosen


@given(VECTORS, st.integers(0, 30))
def test_vectors_are_chosen_as_by_a_plain_search(vectors, k):
    n, k = len(vectors), min(k, len(vectors))
    matrix = Matrix.zeros(n, len(vectors[0]))
    matrix.data[:] = b"".join(
        array("f", v + [0.0] * (matrix.width - len(v))).tobytes() for v in vectors
    )
    expected = plain_choice(
        n, k,
        lambda i, j: sum(x * y for x, y in zip(vectors[i], vectors[j], strict=True)),
        lambda i: not any(vectors[i]),
    )  # fmt: skip
    assert farthest(matrix.data, n, k).tolist() == expected


@given(st.lists(WORDS, min_size=1, max_size=30), st.integers(0, 30))
def test_texts_are_chosen_by_the_hashes_that_they_share(texts, k):
    n, k = len(texts), min(k, len(texts))
    keys = MinHash(2, "words", 16, 1).keys(pl.Series(texts))
    hashes = [[keys[d * n + i] & 0xFFFFFFFF for d in range(16)] for i in range(n)]
    expected = plain_choice(
        n, k,
        lambda i, j: sum(x == y for x, y in zip(hashes[i], hashes[j], strict=True)),
        lambda i: not any(hashes[i]),
    )  # fmt: skip
    assert farthest(signatures(keys.cast("B"), n), n, k, hashes=True).tolist() == expected


@pytest.mark.parametrize("k", [1023, 1024, 1025, 2100])
def test_long_choice_goes_on_where_a_shorter_one_ends(k):
    texts = pl.Series([f"{i % 1500} apples and {i * i % 977} pears" for i in range(2100)])
    data = signatures(MinHash(1, "words", 16, 1).keys(texts).cast("B"), len(texts))
    longest = farthest(data, len(texts), len(texts), hashes=True).tolist()
    assert farthest(data, len(texts), k, hashes=True).tolist() == longest[:k]
    assert sorted(longest) == list(range(2100))


SPREADS = st.sampled_from(["words", "{by: vectors, model: stillroom/ngrams-1}"])


@settings(max_examples=15)
@given(st.lists(WORDS, min_size=1, max_size=12), SPREADS, st.integers(0, 6))
def test_step_keeps_a_smaller_choice_in_a_larger_one_whatever_the_order(questions, spread, n):
    records = [{"question": q, "domain": "math"} for q in questions]

    def kept(records, n):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "q.jsonl").write_text("\n".join(map(json.dumps, records)))
            kitchen = Kitchen(Path(folder, "store"), {"q": f"{folder}/q.jsonl"})
            table = kitchen.chain(
                f"- source: {{file: q.jsonl}}\n- take: {{n: {n}, spread: {spread}}}"
            )
            assert table.height == min(n, kitchen.built[0].artifact.manifest.rows_out)
            return {row["id"] for row in rows(table)}

    smaller, larger = kept(records, n), kept(records, n + 2)
    assert smaller <= larger


def test_blank_and_repeated_questions_are_kept_last(tmp_path):
    texts = ["how many apples are there", "how many apples are there", "name a prime number", "…"]
    (tmp_path / "q.jsonl").write_text(
        "\n".join(json.dumps({"question": t, "n": i}) for i, t in enumerate(texts))
    )
    kitchen = Kitchen(tmp_path / "store", {"q": str(tmp_path / "q.jsonl")})
    steps = "- source: {file: q.jsonl, columns: {n: integer}}\n- take: {n: %d, spread: words}"
    assert {r["question"] for r in rows(kitchen.chain(steps % 2))} == {texts[0], texts[2]}
    assert {r["question"] for r in rows(kitchen.chain(steps % 3))} == {texts[0], texts[2]}


@pytest.mark.parametrize("other", ["per: source", "across: source", "weight: n", "rank: n"])
def test_spread_beside_another_rule_is_one_message(other):
    text = (
        "name: t\ndomains: {math: [{source: {file: x, columns: {n: integer}}}, "
        f"{{take: {{n: 2, {other}, spread: words}}}}]}}"
    )
    with pytest.raises(Exception, match="given beside spread; expected no per, across"):
        read_recipe(text)
