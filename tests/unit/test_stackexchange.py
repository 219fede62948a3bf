"""Stack Exchange dumps: what is a question, what is its text, and what is no dump."""

import gzip
import hashlib
import tracemalloc
from xml.sax.saxutils import quoteattr

import pytest
from tests.kitchen import Kitchen, rows

from stillroom.errors import SetupError, SourceError
from stillroom.recipe.load import read_recipe
from stillroom.steps.source.source import Source
from stillroom.steps.source.stackexchange import read_posts
from stillroom.text.html import text_of_html

BODY = "<p>Why is the <em>sky</em> blue &amp; not 2 &lt; 3?</p>\n\n<pre>x = 1\n</pre>\n"
TEXT = "Why is the sky blue & not 2 < 3?\n\nx = 1"


def post(number, body=BODY, kind=1, **more):
    fields = {"Id": number, "PostTypeId": kind, "Body": body, "Score": 7, "Title": "Sky?",
              "Tags": "<optics><every-day>", "ContentLicense": "CC BY-SA 4.0", **more}  # fmt: skip
    return f"<row {' '.join(f'{k}={quoteattr(str(v))}' for k, v in fields.items())} />"


def dump(*posts):
    text = '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "\n".join(posts) + "\n</posts>"
    return text.encode()


@pytest.fixture
def posts(tmp_path):
    path = tmp_path / "Posts.xml"
    path.write_bytes(dump(post(1), post(2, kind=2), post(3, "<p>Second?</p>", Tags="|a|b|")))
    return path


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path / "store")


def test_questions_are_bodies_as_text_and_answers_are_left_out(posts):
    first, second = read_posts(posts)
    assert first == {"question": TEXT, "title": "Sky?", "tags": "optics every-day", "score": "7",
                     "post": "1", "created": None, "licence": "CC BY-SA 4.0"}  # fmt: skip
    assert (second["question"], second["tags"]) == ("Second?", "a b")


def test_dump_is_a_source_with_the_licence_of_each_post(kitchen, posts):
    kitchen.sources = {"stackexchange_physics": str(posts)}
    table = kitchen.chain("- source: {stackexchange: physics, columns: {score: integer}}")
    found = rows(table, "source", "question", "licence", "score")
    assert found[0] == {"source": "stackexchange_physics", "question": TEXT,
                        "licence": "CC BY-SA 4.0", "score": 7}  # fmt: skip
    assert len(found) == 2


def test_compressed_and_archived_dumps_read_the_same(posts, tmp_path):
    py7zr = pytest.importorskip("py7zr")
    want = list(read_posts(posts))
    packed = tmp_path / "Posts.xml.gz"
    packed.write_bytes(gzip.compress(posts.read_bytes()))
    assert list(read_posts(packed)) == want
    archive = tmp_path / "physics.7z"
    with py7zr.SevenZipFile(archive, "w") as file:
        file.write(posts, "Posts.xml")
        file.writestr("x", "Votes.xml")
    assert list(read_posts(archive)) == want
    assert list(read_posts(archive)) == want, "the second time from the cache"


def test_archives_that_are_none_or_hold_no_posts_are_named(posts, tmp_path):
    py7zr = pytest.importorskip("py7zr")
    broken = tmp_path / "broken.7z"
    broken.write_bytes(b"no archive at all")
    with pytest.raises(SourceError, match=r"broken\.7z: cannot be unpacked"):
        list(read_posts(broken))
    other = tmp_path / "other.7z"
    with py7zr.SevenZipFile(other, "w") as file:
        file.write(posts, "Votes.xml")
    with pytest.raises(SourceError, match=r"no Posts\.xml in it, but Votes\.xml"):
        list(read_posts(other))


def test_archive_without_the_extra_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "py7zr", None)
    (tmp_path / "a.7z").touch()
    with pytest.raises(SetupError, match=r"stillroom\[stackexchange\]"):
        list(read_posts(tmp_path / "a.7z"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as XML"),
        (dump(post(1))[:-20], "cannot be read as XML"),
        (b"<users></users>", "its root is <users>; expected <posts>"),
    ],
)
def test_what_is_no_dump_is_named(tmp_path, content, message):
    (tmp_path / "Posts.xml").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        list(read_posts(tmp_path / "Posts.xml"))


def test_memory_does_not_grow_with_the_dump(tmp_path):
    def peak(n):
        path = tmp_path / f"{n}.xml"
        path.write_bytes(dump(*(post(i, "<p>" + "why? " * 100 + "</p>") for i in range(n))))
        tracemalloc.start()
        assert sum(1 for _ in read_posts(path)) == n
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(4_000) < 2 * peak(400)


def test_without_a_dump_the_message_says_where_it_is(kitchen):
    with pytest.raises(
        SourceError, match=r"archive\.org.*codegolf.*--source stackexchange_codegolf=FILE"
    ):
        kitchen.chain("- source: {stackexchange: codegolf}")


def test_a_wrong_sum_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.7z").write_bytes(b"x")
    url = f"file://{tmp_path}/a.7z"
    monkeypatch.setattr("stillroom.steps.source.source.dump_url", lambda site: url)
    source = Source(stackexchange="physics", sha256="0" * 64)
    with pytest.raises(SourceError, match=f"sha256 is {hashlib.sha256(b'x').hexdigest()}"):
        source._dump("physics")


def test_keys_of_other_sources_do_not_know_of_it():
    text = "name: t\ndomains: {math: [{source: x.jsonl}]}"
    (source,) = read_recipe(text).domains["math"]
    assert "stackexchange" not in source.identity()


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a</p><p>b</p>", "ab"),
        ("a &gt; b &nbsp;&#x41;", "a > b \xa0A"),
        ("<!-- no -->yes<script>x()</script><style>p{}</style>", "yes"),
        ("<p>open <b>bold", "open bold"),
        ("2 < 3 and 4 > 1", "2 < 3 and 4 > 1"),
        ("</script>seen", "seen"),
    ],
)
def test_text_of_html(html, text):
    assert text_of_html(html) == text
