"""Artifacts under construction: what a build that was killed, or lost its power, leaves behind."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tables import store_in

from stillroom.rows import DROP, content_id, dropped
from stillroom.store.artifact import MANIFEST
from stillroom.store.store import JOURNAL, Store, Workshop

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
