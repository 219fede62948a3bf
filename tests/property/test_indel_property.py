"""Indel joins find exactly what comparing all pairs finds, on friendly and on hostile texts."""

import random
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz, process
from rapidfuzz.distance import LCSseq

from stillroom.kernels import _indel, indel, indel_reference

KERNELS = _indel.supported()
THRESHOLDS = [50, 61.8, 75, 90, 92.5, 99, 100]

letters = st.text("ab ", max_size=12)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def likes(draw):
    """Make texts, many of which are edits of others."""
    texts = draw(st.lists(letters | anything, min_size=1, max_size=14))
    for _ in range(draw(st.integers(0, 10))):
        text = draw(st.sampled_from(texts))
        at = draw(st.integers(0, len(text)))
        texts.append(text[:at] + draw(letters) + text[at + draw(st.integers(0, 3)) :])
    return texts


def crowd(seed: int, n: int, longest: int, alphabet: str) -> list[str]:
    """Make texts of all lengths, half of them edits of earlier ones."""
    rng = random.Random(seed)
    texts: list[str] = []
    for _ in range(n):
        if texts and rng.random() < 0.5:
            text = list(rng.choice(texts))
            for _ in range(rng.randint(0, 1 + len(text) // rng.choice([3, 8, 20]))):
                at = rng.randint(0, len(text))
                text[at : at + rng.randint(0, 2)] = rng.choices(alphabet, k=rng.randint(0, 2))
        else:
            text = rng.choices(alphabet, k=rng.randint(0, longest))
        texts.append("".join(text))
    return texts


HOSTILE = {
    "one letter": ["a" * n for n in (0, 1, 1, 2, 3, 255, 256, 257, 300, 510, 512, 900, 1000)],
    "two letters": crowd(1, 120, 90, "ab"),
    "words": crowd(2, 120, 400, "etaoin shrdlu"),
    "many letters": crowd(3, 80, 200, "".join(map(chr, range(0x4E00, 0x4E00 + 700)))),
    "mixed widths": crowd(4, 120, 70, "aé€😀ßΩ中"),
    "long": crowd(5, 14, 6000, "etaoin shrdlucmf"),
    "word boundaries": crowd(6, 150, 130, "abcdefgh"),
}


def every(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    """Compare all pairs by rapidfuzz's LCS, and with the threshold as a fraction."""
    t, found = Fraction(str(threshold)), set()
    for j, b in enumerate(texts):
        for i, a in enumerate(texts[:j]):
            if 200 * LCSseq.similarity(a, b) >= t * (len(a) + len(b)):
                found.add((i, j))
    return found


@given(a=letters | anything, b=letters | anything)
def test_similarity_is_the_ratio_of_rapidfuzz_to_the_last_bit(a, b):
    assert indel.similarity(a, b) == fuzz.ratio(a, b)
    for row in indel.join([a], [b], 50).iter_rows():
        assert row == (0, 0, fuzz.ratio(a, b))


@settings(max_examples=150)
@given(texts=likes(), items=likes(), t=st.sampled_from(THRESHOLDS), limit=st.integers(1, 4))
def test_join_is_that_of_the_reference(texts, items, t, limit):
    wanted = indel_reference.join(texts, items, t, limit=limit)
    for kernels in KERNELS:
        assert indel.join(texts, items, t, limit=limit, kernels=kernels).rows() == wanted


@settings(max_examples=150)
@given(texts=likes(), t=st.sampled_from(THRESHOLDS))
def test_pairs_and_dedup_are_those_of_the_reference(texts, t):
    found = pl.concat([*indel.pairs(texts, t), next(indel.pairs(["a"], t))])
    assert sorted(found.rows()) == indel_reference.pairs(texts, t)
    for rule in ("greedy", "pairwise", "pairwise_limit_5"):
        witnesses = indel_reference.dedup(texts, t, rule=rule)
        rows = indel.dedup(texts, t, rule=rule).rows()
        assert [row for row, _, _ in rows] == list(witnesses)
        for row, witness, score in rows:
            assert witness in witnesses[row]
            assert score == fuzz.ratio(texts[row], texts[witness])


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("t", [50, 75, 90])
def test_hostile_texts_give_all_pairs_and_the_greedy_survivors(name, t):
    texts = HOSTILE[name]
    wanted = every(texts, t)
    assert wanted
    found = pl.concat(indel.pairs(texts, t))
    assert {(a, b) for a, b, _ in found.iter_rows()} == wanted
    assert all(s == fuzz.ratio(texts[a], texts[b]) for a, b, s in found.iter_rows())
    kept: list[int] = []
    for j in range(len(texts)):
        if not any((i, j) in wanted for i in kept):
            kept.append(j)
    dropped = indel.dedup(texts, t)
    assert sorted({*range(len(texts))} - {*dropped["row"]}) == kept
    assert all(w in kept and (w, r) in wanted for r, w, _ in dropped.iter_rows())


def greedy(texts: list[str], threshold: float) -> list[int]:
    """Keep a text unless one that was kept reaches the threshold."""
    t, kept = Fraction(str(threshold)), []
    for j, b in enumerate(texts):
        if not any(
            200 * LCSseq.similarity(texts[i], b) >= t * (len(texts[i]) + len(b)) for i in kept
        ):
            kept.append(j)
    return kept


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("t", [50, 55, 75])
def test_the_greedy_survivors_do_not_depend_on_which_partners_go_first(t, kernels):
    # More partners than go first, and all of them near the threshold.
    texts = crowd(9, 900, 60, "etaoin shrdlucmfwypvbgkjqxz,.0123456789")
    kept = greedy(texts, t)
    assert len(kept) > 300
    dropped = indel.dedup(texts, t, kernels=kernels)
    assert dropped.rows() == indel.dedup(texts, t, kernels=kernels, workers=3).rows()
    assert sorted({*range(len(texts))} - {*dropped["row"]}) == kept
    for row, witness, score in dropped.iter_rows():
        assert witness in kept
        assert witness < row
        assert score == fuzz.ratio(texts[row], texts[witness]) >= t


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_only_partner_is_found_though_its_letters_are_the_least_alike(kernels):
    rng = random.Random(11)
    letters = [chr(ord("A") + i) for i in range(60)]
    text = "".join(letters)
    part = text[::3]  # 2 * 20 / 80: the threshold itself
    anagrams = ["".join(rng.sample(letters, 60)) for _ in range(200)]
    assert not every([*anagrams, part], 50)
    found = indel.dedup([part, *anagrams, text], 50, kernels=kernels)
    assert found.rows() == [(201, 0, 50.0)]


def test_more_items_than_wait_at_once_are_all_compared():
    rng = random.Random(10)
    items = ["".join(rng.choices("abcd", k=9)) for _ in range(12_000)]
    texts = ["".join(rng.choices("abcd", k=9)) for _ in range(8)]
    found = {row: (item, score) for row, item, score in indel.join(texts, items, 50).iter_rows()}
    for i, text in enumerate(texts):
        best = process.extractOne(text, items, scorer=fuzz.ratio, processor=None)
        assert found[i] == (best[2], best[1])


@pytest.mark.parametrize("name", HOSTILE)
def test_join_agrees_with_the_best_choice_of_rapidfuzz(name):
    texts = HOSTILE[name]
    items = texts[::3]
    found = {row: (item, score) for row, item, score in indel.join(texts, items, 60).iter_rows()}
    for i, text in enumerate(texts):
        best = process.extractOne(text, items, scorer=fuzz.ratio, processor=None)
        wanted = (best[2], best[1]) if best[1] >= 60 else None
        assert found.get(i) == wanted


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("rule", ["greedy", "pairwise", "pairwise_limit_5"])
def test_rows_do_not_depend_on_workers_or_kernels(rule, kernels):
    texts = crowd(7, 6000, 60, "etaoin shrdlu")
    ticks: list[int] = []
    wanted = indel.dedup(texts, 75, rule=rule)
    found = indel.dedup(texts, 75, rule=rule, workers=3, kernels=kernels, tick=ticks.append)
    assert found.rows() == wanted.rows()
    assert 1000 < wanted.height < 6000
    assert all(done > 0 for done in ticks)


def test_limit_5_is_what_the_published_code_does():
    texts = crowd(8, 150, 12, "abc")
    different = list(dict.fromkeys(texts))
    rows: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        rows.setdefault(text, []).append(i)
    removed = set()
    for text in different:
        for match, _, _ in process.extract(text, different, scorer=fuzz.ratio, score_cutoff=75):
            removed |= {*sorted({*rows[text], *rows[match]})[1:]}
    assert {*indel.dedup(texts, 75, rule="pairwise_limit_5")["row"]} == removed
    assert {*indel.dedup(texts, 75, rule="pairwise")["row"]} > removed


def test_order_says_which_text_is_better():
    texts = ["one red hen", "a cow", "one red hen!", "one red pen!"]
    order = pl.Series([3, 1, 2, 0], dtype=pl.UInt32)
    in_order = [texts[i] for i in order]
    for rule in ("greedy", "pairwise", "pairwise_limit_5"):
        wanted = indel.dedup(in_order, 85, rule=rule).rows()
        assert indel.dedup(texts, 85, rule=rule, order=order).rows() == wanted
        assert [row for row, _, _ in wanted] == [2, 3]
