"""Artifacts under construction: what a build that was killed, or lost its power, leaves behind."""

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tables import store_in

from stillroom.errors import StoreError
from stillroom.rows import DROP, content_id, dropped
from stillroom.store.artifact import MANIFEST, Artifact, Manifest, Shard, ShardFile
from stillroom.store.store import JOURNAL, Store, Workshop
from stillroom.store.table import Table

KEY = "k" * 32
SHARDS = [dropped([content_id(shard, i) for i in range(50)], "short") for shard in range(3)]


def begin(store: Store, shards: int, key: str = KEY) -> Workshop:
    """Write some shards, and stop."""
    with store.building("keep", key) as shop:
        assert isinstance(shop, Workshop)
        for place in range(shards):
            shop.write(place, SHARDS[place], rows_in=60, lost=SHARDS[place][:1])
        return shop


def finish(store: Store, key: str = KEY) -> tuple[list[int], dict[str, bytes]]:
    """Go on, and return the shards that had to be written and all files of the artifact."""
    with store.building("keep", key) as shop:
        assert isinstance(shop, Workshop)
        missing = [place for place in range(3) if not shop.has(place)]
        for place in missing:
            shop.write(place, SHARDS[place], rows_in=60)
        artifact = shop.finish(
            version=1, fields={}, inputs=[], delta="drops", kind=None, schema=DROP, n_shards=3,
            measured={}, notes=[],
        )  # fmt: skip
    artifact.verify()
    return missing, {p.name: p.read_bytes() for p in artifact.path.iterdir()}


@pytest.fixture
def store(tmp_path):
    return store_in(tmp_path)


def test_killed_build_goes_on_after_its_last_shard(store):
    begin(store, 2)
    missing, files = finish(store)
    assert missing == [2]
    assert sorted(files) == [
        "00000.lost.parquet", "00000.parquet", "00001.lost.parquet", "00001.parquet",
        "00002.parquet", MANIFEST,
    ]  # fmt: skip


@settings(max_examples=25)
@given(cut=st.integers(1, 400), rest=st.sampled_from([b"", b"\0\0\0", b"\xff{", b"7\n{}"]))
def test_torn_journal_costs_the_shard_of_its_last_line_only(tmp_path_factory, cut, rest):
    store = store_in(tmp_path_factory.mktemp("store"))
    journal = begin(store, 2).path / JOURNAL
    content = journal.read_bytes()
    last = content.rindex(b"\n")
    journal.write_bytes(content[: max(last + 1, len(content) - cut)] + rest)
    assert finish(store)[0] == [1, 2]


@pytest.mark.parametrize("harm", ["cut", "edited", "empty", "gone", "lost"])
def test_shard_whose_file_the_disk_never_got_is_written_again(store, harm):
    folder = begin(store, 3).path
    path = folder / ("00001.lost.parquet" if harm == "lost" else "00001.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    match harm:
        case "gone" | "lost":
            path.unlink()
        case "cut":
            path.write_bytes(content[:-20])
        case "empty":
            path.write_bytes(b"")
        case "edited":
            path.write_bytes(content)
    assert finish(store)[0] == [1]


def test_files_that_no_shard_names_are_not_published(store):
    folder = begin(store, 1).path
    (folder / "00001.lost.parquet").write_bytes(b"rows that a second try did not lose")
    (folder / MANIFEST).write_text("{torn")
    files = finish(store)[1]
    assert "00001.lost.parquet" not in files
    assert JOURNAL not in files


def test_drops_are_the_same_bytes_however_often_a_build_was_stopped(store):
    whole = finish(store, "a" * 32)[1]
    for shards in (1, 2):
        begin(store, shards, "b" * 32)
    stopped = finish(store, "b" * 32)[1]
    assert all(stopped[name] == whole[name] for name in whole if name != MANIFEST)


PLACES = [0, 3, 4, 5, 9]
HEIGHTS = [4, 0, 2, 4]
ROWS = Table(
    Artifact(
        Path(),
        Manifest(
            "source", 1, KEY, {}, [], "rows", "questions", {},
            [Shard(ShardFile(f"{i}", n, 0, "", {"id": f"{i}"})) for i, n in enumerate(HEIGHTS)],
            10, 10, {}, "",
        ),
    )
)  # fmt: skip


def found(places: Sequence[int]) -> pl.DataFrame:
    """Return drops as a step finds them over a whole table."""
    ids = [content_id(place) for place in places]
    reasons = ["odd" if place % 2 else "even" for place in places]
    return dropped(ids, reasons, place=pl.Series(places, dtype=pl.UInt32))


def publish(shop: Workshop) -> Artifact:
    return shop.finish(
        version=1, fields={}, inputs=[], delta="drops", kind=None, schema=DROP,
        n_shards=shop.n_shards, measured={}, notes=[],
    )  # fmt: skip


def one_file(store: Store, places: Sequence[int], heights: Sequence[int], key: str) -> Artifact:
    with store.building("keep", key) as shop:
        assert isinstance(shop, Workshop)
        shop.write_drops(found(places), heights)
        return publish(shop)


def by_shard(store: Store, places: Sequence[int], heights: Sequence[int], key: str) -> Artifact:
    with store.building("keep", key) as shop:
        assert isinstance(shop, Workshop)
        start = 0
        for shard, rows in enumerate(heights):
            here = [place for place in places if start <= place < start + rows]
            shop.write(shard, found(here).drop("place"), rows_in=rows)
            start += rows
        return publish(shop)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2**10 - 1)), max_size=6))
def test_one_file_says_of_every_shard_what_a_file_of_its_own_says(tmp_path_factory, shards):
    store = store_in(tmp_path_factory.mktemp("store"))
    heights = [rows for rows, _ in shards]
    starts = [0, *accumulate(heights)]
    places = [
        start + i for start, (rows, gone) in zip(starts, shards, strict=False)
        for i in range(rows) if gone >> i & 1
    ]  # fmt: skip
    one = one_file(store, places, heights, "1" * 32)
    many = by_shard(store, places, heights, "2" * 32)
    one.verify()
    assert len(one.files()) == (1 if heights else 0)
    assert one.scan_all().collect().equals(many.scan_all().collect())
    for mine, its in zip(one.manifest.shards, many.manifest.shards, strict=True):
        assert one.scan(mine.data).collect().equals(many.scan(its.data).collect())
        assert mine.rows_in == its.rows_in
    same = ("rows_in", "rows_out", "drops", "dropped_ids")
    assert [getattr(one.manifest, n) for n in same] == [getattr(many.manifest, n) for n in same]


def test_old_artifact_of_a_file_per_shard_is_read(store):
    old = by_shard(store, PLACES, HEIGHTS, KEY)
    manifest = json.loads((old.path / MANIFEST).read_text())
    assert manifest["format"] == 2
    manifest["format"] = 1
    for shard in manifest["shards"]:
        del shard["data"]["start"]
    (old.path / MANIFEST).write_text(json.dumps(manifest))
    read = store.find("keep", KEY)
    new = one_file(store, PLACES, HEIGHTS, "n" * 32)
    assert read.scan_all().collect().equals(new.scan_all().collect())
    assert ROWS.plus(read).heights == ROWS.plus(new).heights == [2, 0, 0, 3]
    assert ROWS.plus(read).digest() == ROWS.plus(new).digest()


def test_artifact_of_a_later_format_is_refused_in_one_sentence(store):
    path = one_file(store, PLACES, HEIGHTS, KEY).path / MANIFEST
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(StoreError, match=r"format is 3.*expected a manifest of format 1 or 2"):
        store.find("keep", KEY)


@pytest.mark.parametrize("left", ["nothing", "torn file", "other file", "shards"])
def test_one_file_is_the_same_whatever_a_stopped_build_left(store, left):
    whole = one_file(store, PLACES, HEIGHTS, "w" * 32)
    with store.building("keep", KEY) as shop:
        match left:
            case "torn file" | "other file":
                shop.write_drops(found([1, 2] if left == "other file" else PLACES), HEIGHTS)
                if left == "torn file":
                    content = (shop.path / "drops.parquet").read_bytes()
                    (shop.path / "drops.parquet").write_bytes(content[:30])
            case "shards":
                for shard in range(3):
                    shop.write(shard, SHARDS[shard], rows_in=60, lost=SHARDS[shard][:1])
    with store.building("keep", KEY) as shop:
        assert shop.has(0) is (left == "shards")
    again = one_file(store, PLACES, HEIGHTS, KEY)
    again.verify()
    name = "drops.parquet"
    assert sorted(p.name for p in again.path.iterdir()) == [name, MANIFEST]
    assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert again.manifest.to_json().replace(KEY, "w" * 32) == whole.manifest.to_json()
