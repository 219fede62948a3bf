"""Configs and splits of repositories on the hub: which files a source means, and what it says."""

import json

import pytest
from tests.kitchen import Kitchen, rows

from stillroom.errors import SourceError
from stillroom.run.runner import Watcher
from stillroom.steps.source.configs import NoSuchPart, chosen, configs_of, mixed, split_of
from stillroom.steps.source.source import Source

README = b"""---
license: mit
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files: {train: "socratic/train-*", test: ["socratic/test-*"]}
- config_name: all
  data_files: "**/*.jsonl"
- config_name: none
  data_files: nowhere/*.jsonl
- odd
---
# Words
"""
NAMES = [f"{c}/{s}-0000{i}.jsonl" for c in ("main", "socratic") for s in ("test", "train")
         for i in range(2)]  # fmt: skip


def declared():
    import yaml

    return yaml.safe_load(README.decode().split("---\n")[1])["configs"]


def test_configs_are_the_files_that_a_repository_declares():
    main, socratic, everything = configs_of([*NAMES, "README.md"], declared())
    assert set(main.files.items()) == {
        ("main/train-00000.jsonl", "train"), ("main/train-00001.jsonl", "train"),
        ("main/test-00000.jsonl", "test"), ("main/test-00001.jsonl", "test"),
    }  # fmt: skip
    assert len(socratic.files) == 4
    assert set(everything.files) == set(NAMES)
    assert everything.files["socratic/test-00000.jsonl"] == "test"


@pytest.mark.parametrize("odd", [None, "main", [1], [{"config_name": 1}], {"config_name": "a"}])
def test_metadata_that_declares_nothing_gives_no_config(odd):
    assert configs_of(NAMES, odd) == []


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("data/*.jsonl", "data/a.jsonl", True),
        ("data/*.jsonl", "data/b/a.jsonl", False),
        ("**/*.jsonl", "a.jsonl", True),
        ("**/*.jsonl", "b/c/a.jsonl", True),
        ("data/**", "data/b/a.jsonl", True),
        ("./a-[0-9].jsonl", "a-1.jsonl", True),
        ("a-[!0-9].jsonl", "a-1.jsonl", False),
        ("a?.jsonl", "ab.jsonl", True),
        ("a.jsonl", "axjsonl", False),
        ("a[].jsonl", "a1.jsonl", False),
    ],
)
def test_patterns_mean_what_the_hub_means(pattern, name, found):
    configs = configs_of([name], [{"config_name": "x", "data_files": pattern}])
    assert bool(configs) is found


def test_a_config_may_be_a_folder():
    (one,) = configs_of(NAMES, [{"config_name": "x", "data_dir": "main"}])
    assert set(one.files) == {n for n in NAMES if n.startswith("main/")}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("validation/part.jsonl", "validation"),
        ("train/dev.jsonl", "validation"),
        ("my_test_set.jsonl", "test"),
        ("contest.jsonl", None),
    ],
)
def test_names_of_files_tell_their_split(name, split):
    assert split_of(name) == split


def test_a_part_is_chosen_and_one_that_is_not_there_is_told():
    configs = configs_of(NAMES, declared())
    assert chosen(NAMES, configs, "main", "test") == [
        "main/test-00000.jsonl",
        "main/test-00001.jsonl",
    ]
    assert len(chosen(NAMES, configs, None, "train")) == 4
    assert len(chosen(NAMES, [], None, "train")) == 4
    with pytest.raises(NoSuchPart, match="no config 'x'; its configs are main, socratic, all"):
        chosen(NAMES, configs, "x", None)
    with pytest.raises(NoSuchPart, match="no split 'dev'; its splits are test, train"):
        chosen(NAMES, configs, "main", "dev")
    with pytest.raises(NoSuchPart, match="it names no configs"):
        chosen(NAMES, [], "main", None)


def test_files_of_several_configs_or_splits_are_told_and_no_others():
    configs = configs_of(NAMES, declared()[:2])
    assert mixed(NAMES, configs) == (
        "2 configs and 2 splits: test of main (2), test of socratic (2), train of main (2), "
        "train of socratic (2)"
    )
    assert mixed(NAMES[:4], configs) == "2 splits: test of main (2), train of main (2)"
    assert mixed(NAMES[2:4], configs) is None
    # Files that are all of one config are of no other.
    assert (
        mixed(NAMES, configs_of(NAMES, declared())) == "2 splits: test of all (4), train of all (4)"
    )
    assert mixed(NAMES, []) == "2 splits: test (4), train (4)"
    assert mixed(["a.jsonl", "b.jsonl"], []) is None


@pytest.fixture
def repository(hub):
    files = {n: json.dumps({"question": f"In {n}?"}).encode() + b"\n" for n in NAMES}
    everything = README.replace(b'- config_name: all\n  data_files: "**/*.jsonl"\n', b"")
    return hub.add("some/rows", {**files, "README.md": everything})


def source(sha, **fields):
    return "- source: " + json.dumps({"hub": "some/rows", "revision": sha, **fields})


def test_a_source_of_several_configs_warns_and_notes_what_was_taken(repository, tmp_path):
    heard = []

    class Hears(Watcher):
        def tick(self, news):
            heard.extend([news.warning] if news.warning else [])

    kitchen = Kitchen(tmp_path / "store")
    kitchen.watcher = Hears()
    table = kitchen.chain(source(repository, files="*.jsonl"))
    words = "some/rows: its files are of 2 configs and 2 splits: test of main (2), "
    assert table.height == 8
    assert kitchen.built[0].artifact.manifest.notes[0].startswith(words)
    assert len(heard) == 1
    assert heard[0].startswith(words)
    assert heard[0].endswith("Name one by `config` or `split`, or fewer `files`.")
    kitchen.chain(source(repository, files="main/train-*.jsonl"))
    assert kitchen.built[0].artifact.manifest.notes == []
    assert len(heard) == 1


def test_a_source_reads_the_config_and_split_that_it_names(repository, tmp_path):
    kitchen = Kitchen(tmp_path / "store")
    table = kitchen.chain(source(repository, config="socratic", split="test"))
    assert [r["question"] for r in rows(table)] == [f"In {n}?" for n in NAMES if "socratic/te" in n]
    assert kitchen.built[0].artifact.manifest.notes == []
    with pytest.raises(SourceError, match=r"no config 'other'; its configs are main, socratic"):
        kitchen.chain(source(repository, config="other"))
    with pytest.raises(SourceError, match=r"no split 'dev'; its splits are test, train"):
        kitchen.chain(source(repository, files="main/*", split="dev"))


def test_config_and_split_change_no_key_of_sources_without_them():
    hub_of = {"hub": "a/b", "revision": "0" * 40, "files": "*.jsonl"}
    assert not {"config", "split"} & Source(**hub_of).identity().keys()
    assert Source(**hub_of, config="x").identity()["config"] == "x"
    with pytest.raises(ValueError, match="config and split go with hub"):
        Source(file="a.jsonl", split="train")
