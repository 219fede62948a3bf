"""Digests: what the C reader sees, against the definition in plain Python."""

import json
import struct
from hashlib import blake2b

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillroom.rows import content_id
from stillroom.store.digest import add_ids, column_digest, id_digest

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.tuples(st.just(pl.String), st.lists(st.none() | st.text(max_size=20))),
    st.tuples(st.just(pl.Int64), st.lists(st.none() | INT64)),
    st.tuples(st.just(pl.Int32), st.lists(st.none() | st.integers(-(2**31), 2**31 - 1))),
    st.tuples(st.just(pl.Boolean), st.lists(st.none() | st.booleans())),
    st.tuples(st.just(pl.Float64), st.lists(st.none() | st.floats(allow_nan=False))),
    st.tuples(st.just(pl.List(pl.String)), st.lists(st.none() | st.lists(st.text(max_size=3)))),
)


def by_definition(dtype, values):
    """Digest a column as the docstring of `column_digest` says."""
    state = blake2b(str(dtype).encode(), digest_size=16)
    if None in values:
        state.update(bytes(v is None for v in values))
    if dtype == pl.String:
        texts = [(v or "").encode() for v in values]
        state.update(b"".join(struct.pack("=I", len(t)) for t in texts) + b"".join(texts))
    elif isinstance(dtype, pl.List):
        state.update(json.dumps(values).encode())
    else:
        form = "=d" if dtype == pl.Float64 else "=q"
        state.update(b"".join(struct.pack(form, 0 if v is None else v) for v in values))
    return state.hexdigest()


@given(VALUES, st.data())
def test_column_digest_is_what_it_is_defined_to_be_however_the_column_lies(drawn, data):
    dtype, values = drawn
    column = pl.Series("x", values, dtype=dtype)
    expected = by_definition(column.dtype, values)
    assert column_digest(column) == expected
    cut = data.draw(st.integers(0, len(values)))
    chunks = column[:cut].append(column[cut:])
    assert column_digest(chunks) == expected
    padded = pl.concat([column[:1], column, column[:1]])
    assert column_digest(padded.slice(len(column[:1]), len(column))) == expected


def test_digests_stay_what_they_were():
    long = "a text of more than twelve bytes"
    assert column_digest(pl.Series(["a", None, "", long])) == "b90fe3bac4c46498381759494c57d97f"
    assert column_digest(pl.Series([1, None, -5])) == "576907fdd89ae6a25ff2fdb4b3e33fe8"
    assert column_digest(pl.Series([0.5, None, -0.0])) == "1fa4fcfbe98925253fc92a182fc6936f"
    assert column_digest(pl.Series([True, False])) == "c754597c904c6b3ee64626dccd765a41"


@given(st.lists(st.integers().map(content_id), unique=True), st.integers(0, 20))
def test_sum_of_ids_does_not_depend_on_order_or_parts(ids, cut):
    whole = id_digest(pl.Series(ids, dtype=pl.String))
    assert whole == add_ids("", ids) == id_digest(pl.Series(ids[::-1], dtype=pl.String))
    parts = [id_digest(pl.Series(p, dtype=pl.String)) for p in (ids[:cut], ids[cut:])]
    assert whole == add_ids("", [part or "0" for part in parts])


@pytest.mark.parametrize("bad", ["", "xyz", "0A", None, "é0"])
def test_id_that_is_no_hash_is_refused_by_number(bad):
    with pytest.raises(ValueError, match="id 1 is not hexadecimal"):
        id_digest(pl.Series(["0a", bad, "0b"]))


@given(st.text("0189af:/@`gG\0é", min_size=1, max_size=40))
def test_number_is_read_as_python_reads_it_or_refused(text):
    if set(text) <= set("0123456789abcdef"):
        assert int(id_digest(pl.Series([text])) or "0", 16) == int(text, 16) % (1 << 128)
    else:
        with pytest.raises(ValueError, match="id 0 is not hexadecimal"):
            id_digest(pl.Series([text]))
