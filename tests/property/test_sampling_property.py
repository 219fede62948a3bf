"""Seeded draws and divisions."""

from fractions import Fraction
from hashlib import blake2b

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from stillroom.rows import content_id
from stillroom.steps.sampling import beyond, divide, lottery, so_many, tiled

texts = st.lists(st.one_of(st.text(max_size=50), st.integers(0, 400).map(lambda n: "é" * n)))
SEEDS = st.integers(-(2**127), 2**127 - 1)


@given(ids=texts, seed=SEEDS, purpose=st.lists(st.none() | st.text(max_size=9), max_size=3))
@example(ids=["", "x" * 127, "x" * 128, "x" * 129, "x" * 256, "x" * 257], seed=42, purpose=["a"])
def test_draw_is_the_keyed_hash_of_the_standard_library(ids, seed, purpose):
    key = seed.to_bytes(16, "little", signed=True) + bytes.fromhex(content_id(*purpose))
    expected = [
        int.from_bytes(blake2b(i.encode(), digest_size=8, key=key).digest(), "big") for i in ids
    ]
    rows = pl.DataFrame({"id": ids}, {"id": pl.String})
    assert rows.select(lottery(seed, *purpose))["lot"].to_list() == expected


NAMES = st.text("abcdefgh", min_size=1, max_size=2)


@given(
    total=st.integers(0, 200),
    groups=st.dictionaries(
        NAMES, st.tuples(st.integers(0, 60), st.sampled_from([0, 0.1, 1, 2, 3.7])), max_size=8
    ),
)
def test_division_gives_all_there_is_and_follows_the_weights(total, groups):
    room = {g: r for g, (r, _) in groups.items()}
    weights = {g: w for g, (_, w) in groups.items()}
    given_ = divide(total, room, weights)
    assert all(0 <= given_[g] <= room[g] for g in room)
    assert all(given_[g] == 0 for g in room if not weights[g])
    assert sum(given_.values()) == min(total, sum(room[g] for g in room if weights[g]))
    # No group that still has room is a whole row behind one that got more for its weight.
    for a in room:
        for b in room:
            if weights[a] and weights[b] and given_[a] < room[a]:
                behind = Fraction(given_[a] + 1) / Fraction(str(weights[a]))
                assert behind >= Fraction(given_[b] - 1) / Fraction(str(weights[b]))
    backwards = dict(reversed(room.items()))
    assert divide(total, backwards, weights) == given_


@given(ids=st.lists(st.text("abc", max_size=3), min_size=1, unique=True), n=st.integers(0, 40))
def test_tiles_repeat_rows_in_order_under_ids_of_their_own(ids, n):
    rows = tiled(pl.DataFrame({"id": ids}), n)
    assert rows["origin"].to_list() == [ids[i % len(ids)] for i in range(n)]
    assert rows["id"].n_unique() == n
    assert rows["id"].to_list()[: len(ids)] == ids[:n]
    again = tiled(rows.select("id"), 2 * n) if n else rows
    assert again["id"].n_unique() == again.height


SMALL = st.floats(-2, 2).map(round) | st.just(float("nan"))


@given(
    values=st.lists(st.tuples(SMALL, st.integers(0, 3), st.sampled_from(["x", "y", None]))),
    n=st.integers(0, 40),
    per=st.sampled_from([None, "group"]),
)
def test_rows_beyond_the_first_n_are_those_that_a_sort_puts_last(values, n, per):
    schema = {"a": pl.Float64, "b": pl.Int64, "group": pl.String}
    rows = pl.DataFrame(values, schema=schema, orient="row").with_row_index("id")
    ordered = rows.sort("a", "b", "id")
    parts = [ordered]
    if per:
        groups = ["x", "y", None]
        parts = [ordered.filter(pl.col(per).eq_missing(pl.lit(g, pl.String))) for g in groups]
    expected = pl.concat(part[n:] for part in parts).sort("id")
    assert beyond(rows, pl.lit(n), ["a", "b", "id"], per).equals(expected)


@given(st.dictionaries(st.integers(0, 2**62), st.sampled_from("xy")))
def test_rows_beyond_a_part_of_each_group_are_found_by_a_draw_without_ties(group_of):
    rows = pl.DataFrame(
        list(group_of.items()), schema={"lot": pl.Int64, "g": pl.String}, orient="row"
    )
    rows = rows.with_columns(id=-pl.col("lot"))
    first = set()
    for name in "xy":
        lots = sorted(lot for lot, group in group_of.items() if group == name)
        first |= set(lots[: -(-len(lots) * 3 // 10)])
    expected = rows.filter(~pl.col("lot").is_in(first))
    assert beyond(rows, so_many("30%"), ["lot", "id"], "g").equals(expected)
