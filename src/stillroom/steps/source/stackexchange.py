"""Questions of a Stack Exchange site, out of the dump of its posts.

The dumps lie at https://archive.org/details/stackexchange: one 7z archive a site, with a file
Posts.xml in it. As in OpenThoughts (arXiv 2506.04178), a question is the text of a post's body, its
marks taken out; titles, tags and scores choose nothing, but may be kept as columns.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from stillroom.errors import SetupError, SourceError
from stillroom.steps.source.fetch import cache_folder
from stillroom.steps.source.files import opened, sha256_of
from stillroom.text.html import text_of_html

QUESTION = "1"
"""Of PostTypeId; 2 is an answer."""

POSTS = "Posts.xml"


def dump_url(site: str) -> str:
    """Return where the dump of a site lies.

    >>> dump_url("physics")
    'https://archive.org/download/stackexchange/physics.stackexchange.com.7z'
    """
    name = "stackoverflow.com-Posts" if site == "stackoverflow" else f"{site}.stackexchange.com"
    return f"https://archive.org/download/stackexchange/{name}.7z"


def read_posts(path: Path) -> Iterator[Mapping[str, str | None]]:
    """Read the questions of a dump, one after the other; memory does not grow with its size.

    Args:
        path: A 7z archive, or its Posts.xml, which may be compressed.

    Yields:
        ``question``, ``title``, ``tags`` (with spaces between), ``score``, ``post`` (the site's
        own number), ``created`` and ``licence``. What a post lacks is null.

    Raises:
        SetupError: If an archive is given and py7zr is not installed.
        SourceError: If the file is not such a dump.
    """
    posts = _unpacked(path) if path.suffix == ".7z" else path
    if not posts.is_file():
        raise SourceError(f"{posts}: no such file. Check the path, or pass --source NAME=FILE.")
    with opened(posts) as file:
        try:
            events = ElementTree.iterparse(file, events=("start", "end"))
            _, root = next(events)
            if root.tag != "posts":
                raise SourceError(
                    f"{posts}: its root is <{root.tag}>; expected <posts>, as in Posts.xml of a "
                    "Stack Exchange dump. Name that file."
                )
            for event, row in events:
                if event == "end" and row.tag == "row":
                    if row.get("PostTypeId") == QUESTION:
                        yield _record(row)
                    root.clear()
        except (ElementTree.ParseError, StopIteration, OSError, EOFError) as error:
            raise SourceError(
                f"{posts}: cannot be read as XML ({error}). Check that the dump is whole."
            ) from error


def _record(row: ElementTree.Element) -> Mapping[str, str | None]:
    tags = (row.get("Tags") or "").replace("|", " ").replace("<", " ").replace(">", " ")
    return {
        "question": text_of_html(row.get("Body") or ""),
        "title": row.get("Title"),
        "tags": " ".join(tags.split()) or None,
        "score": row.get("Score"),
        "post": row.get("Id"),
        "created": row.get("CreationDate"),
        "licence": row.get("ContentLicense"),
    }


def _unpacked(path: Path) -> Path:
    """Take Posts.xml out of an archive, once, into the cache."""
    try:
        import py7zr
    except ImportError as error:
        raise SetupError(
            f"{path}: py7zr is not installed; expected the extra, to read 7z archives. "
            "Run pip install 'stillroom[stackexchange]', or unpack Posts.xml and name it."
        ) from error
    if not path.is_file():
        raise SourceError(f"{path}: no such file. Check the path, or pass --source NAME=FILE.")
    folder = cache_folder() / "stackexchange" / sha256_of(path)
    if (folder / POSTS).is_file():
        return folder / POSTS
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with py7zr.SevenZipFile(path) as archive:
            if POSTS not in archive.getnames():
                names = ", ".join(archive.getnames()[:10])
                raise SourceError(f"{path}: no {POSTS} in it, but {names}. Name the site's dump.")
            archive.extract(partial, targets=[POSTS])
    except (py7zr.exceptions.ArchiveError, OSError, EOFError, ValueError) as error:
        raise SourceError(
            f"{path}: cannot be unpacked ({type(error).__name__}: {error}). "
            "Check that the archive is whole and the disk has room."
        ) from error
    if not folder.exists():
        partial.replace(folder)
    return folder / POSTS
