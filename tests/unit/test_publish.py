"""Publishing to a stand-in hub, and fetching from it."""

import polars as pl
import pytest
from huggingface_hub import constants
from tests.hub_server import READ_ONLY
from tests.tables import answer_table, question_table, store_in, verify

from stillroom.errors import ExportError, SourceError
from stillroom.steps.export.export import Export, write_dataset
from stillroom.steps.export.licences import CLOSED, OPEN, hub_metadata, hub_name, objection
from stillroom.steps.export.publish import publish
from stillroom.steps.source.fetch import Named, fetch_hub

# The hub's client 2.4 hands files to its HTTP library in a way that this has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


@pytest.fixture
def store(tmp_path):
    return store_in(tmp_path)


def dataset(store, folder, *, licence="mit", n=6, file_mb=256):
    questions = question_table(store, n, licence=licence, shard=60)
    table = verify(store, answer_table(store, questions, pad=9000))
    write_dataset(
        folder,
        name="sums",
        recipe_text="name: sums\n",
        tables={"math": table},
        story=[],
        export=Export(file_mb=file_mb),
    )
    return folder


def test_publish_pushes_every_file_in_one_commit(hub, store, tmp_path):
    folder = dataset(store, tmp_path / "out")
    url = publish(folder, "me/sums", private=True)
    assert url == f"{hub.url}/datasets/me/sums"
    repo = hub.repos["me/sums"]
    assert repo.private
    _, files = repo.at("main")
    local = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert set(files) == {".gitattributes", *local}
    assert all(files[name] == path.read_bytes() for name, path in local.items())
    assert repo.messages[1].startswith("sums: 12 rows, dataset ")
    assert len(repo.messages) == 2


def test_publish_leaves_out_files_that_are_no_part_of_the_dataset(hub, store, tmp_path):
    folder = dataset(store, tmp_path / "out")
    (folder / ".env").write_text("SECRET=1")
    publish(folder, "me/sums", private=False)
    assert ".env" not in hub.repos["me/sums"].at("main")[1]


def test_publish_again_removes_files_that_the_new_dataset_lacks(hub, store, tmp_path):
    publish(dataset(store, tmp_path / "out", n=200, file_mb=1), "me/sums", private=True)
    before = [n for n in hub.repos["me/sums"].at("main")[1] if n.startswith("data/")]
    publish(dataset(store, tmp_path / "out", n=6), "me/sums", private=True)
    after = [n for n in hub.repos["me/sums"].at("main")[1] if n.startswith("data/")]
    assert len(before) > 1
    assert after == ["data/train-00000-of-00001.parquet"]


def test_publish_of_an_unchanged_dataset_is_accepted(hub, store, tmp_path):
    folder = dataset(store, tmp_path / "out")
    assert publish(folder, "me/sums", private=True) == publish(folder, "me/sums", private=True)


@pytest.mark.parametrize("harm", ["edit", "tear", "delete"])
def test_publish_refuses_a_damaged_dataset(hub, store, tmp_path, harm):
    folder = dataset(store, tmp_path / "out")
    (path,) = (folder / "data").iterdir()
    content = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
    elif harm == "tear":
        path.write_bytes(content[:-10])
    else:
        content[100] ^= 1
        path.write_bytes(content)
    with pytest.raises(ExportError, match=r"train-00000-of-00001\.parquet (is|has)"):
        publish(folder, "me/sums", private=True)
    assert not hub.requests


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", "CC BY-ND 4.0", None, "other", "my own"])
def test_publish_refuses_licences_that_do_not_allow_it(hub, store, tmp_path, licence):
    folder = dataset(store, tmp_path / "out", licence=licence)
    with pytest.raises(ExportError, match=r"12 rows may not be published: sums \(12 rows"):
        publish(folder, "me/sums", private=True)
    assert not hub.requests
    publish(folder, "me/sums", private=True, allow_licences=True)
    assert "me/sums" in hub.repos


def test_publish_says_that_a_token_is_missing(hub, store, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ExportError, match=r"no token; expected one that may write\. Set HF_TOKEN"):
        publish(dataset(store, tmp_path / "out"), "me/sums", private=True)


@pytest.mark.parametrize(
    ("token", "words"),
    [("hf_wrongone", "does not know the token"), (READ_ONLY, "may not write there")],
)
def test_publish_never_shows_a_refused_token(hub, store, tmp_path, monkeypatch, token, words):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ExportError, match=words) as caught:
        publish(dataset(store, tmp_path / "out"), "me/sums", private=True)
    assert token not in str(caught.value)
    assert caught.value.__cause__ is None
    stored = [p for p in tmp_path.rglob("*") if p.is_file() and token.encode() in p.read_bytes()]
    assert not stored


def test_publish_of_a_folder_that_is_no_dataset_is_refused(hub, tmp_path):
    with pytest.raises(ExportError, match="no dataset is there"):
        publish(tmp_path / "nothing", "me/sums", private=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(ExportError, match=r"no stillroom\.json in it"):
        publish(tmp_path / "photos", "me/sums", private=True)


def test_publish_to_a_hub_that_is_down_says_so(hub, store, tmp_path):
    folder = dataset(store, tmp_path / "out")
    with pytest.raises(ExportError, match=r"^hub me/sums: cannot be written \(ConnectError"):
        publish(folder, "me/sums", private=True, endpoint="http://127.0.0.1:9")


def test_publish_that_breaks_off_leaves_the_hub_as_it_was(hub, store, tmp_path, monkeypatch):
    publish(dataset(store, tmp_path / "out"), "me/sums", private=True)
    before = hub.repos["me/sums"].at("main")
    hub.broken = "/lfs/*"
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(ExportError, match=r"cannot be written .* Nothing is half published"):
        publish(dataset(store, tmp_path / "out", n=8), "me/sums", private=True)
    assert hub.repos["me/sums"].at("main") == before


def test_fetch_hub_brings_what_was_published(hub, store, tmp_path):
    folder = dataset(store, tmp_path / "out")
    publish(folder, "me/sums", private=True)
    sha, _ = hub.repos["me/sums"].at("main")
    (path,) = fetch_hub("me/sums", sha, Named("data/*.parquet"))
    assert pl.read_parquet(path).height == 12
    n = len(hub.requests)
    assert fetch_hub("me/sums", sha, Named("data/*.parquet")) == [path]
    assert not [r for r in hub.requests[n:] if r.startswith("GET /datasets")]


def test_fetch_hub_sorts_files_by_name_and_reads_the_commit(hub):
    first = hub.add("some/rows", {"b.jsonl": b"2", "a.jsonl": b"1"})
    hub.add("some/rows", {"a.jsonl": b"changed"})
    paths = fetch_hub("some/rows", first, Named("*.jsonl"))
    assert [p.read_bytes() for p in paths] == [b"1", b"2"]


def test_fetch_hub_names_the_files_when_none_matches(hub):
    sha = hub.add("some/rows", {"a.jsonl": b"1"})
    with pytest.raises(SourceError, match=r"no file matches '\*\.csv'; its files are a\.jsonl"):
        fetch_hub("some/rows", sha, Named("*.csv"))


def test_fetch_hub_says_what_is_not_there(hub):
    hub.add("some/rows", {"a.jsonl": b"1"})
    with pytest.raises(SourceError, match=r"hub no/body@0{12}: cannot be fetched \(Repository"):
        fetch_hub("no/body", "0" * 40, Named("*"))
    with pytest.raises(SourceError, match=r"cannot be fetched \(RevisionNotFoundError"):
        fetch_hub("some/rows", "0" * 40, Named("*"))


def test_licence_names_are_written_as_on_the_hub():
    assert hub_name("Apache 2.0 License") == "apache-2.0"
    assert hub_name("The MIT Licence") == "mit"
    assert hub_name("  ") == "unknown"
    assert not OPEN & CLOSED
    assert all(objection(name) for name in CLOSED)
    assert hub_metadata({"MIT"}) == {"license": "mit"}
    assert hub_metadata({None}) == {"license": "unknown"}
    assert hub_metadata({"mit", "cc0-1.0"})["license_name"] == "mixed"
    assert hub_metadata({"Odd: <terms>"})["license_name"] == "odd-terms"


def test_fetch_hub_says_that_the_hub_is_down(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    # The hub's client tries again for 23 seconds; nobody has to wait for that.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(SourceError, match=r"cannot be fetched .*Check the network"):
        fetch_hub("some/rows", "1" * 40, Named("*"))
