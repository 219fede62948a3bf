"""Remote files brought to the local disk, once, and checked against what the recipe pins."""

import fnmatch
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from stillroom.errors import SourceError
from stillroom.steps.source.files import sha256_of

COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder() -> Path:
    """Return the folder for fetched files: ``$STILLROOM_CACHE``, or ``~/.cache/stillroom``."""
    return Path(os.environ.get("STILLROOM_CACHE") or Path.home() / ".cache" / "stillroom")


def fetch_url(url: str, sha256: str) -> Path:
    """Bring the file behind a URL to the local disk.

    Any address that fsspec knows will do: ``https://``, ``s3://``, ``gs://`` and so on, with the
    matching extra installed.

    Raises:
        SourceError: If it cannot be fetched, or is not the file that was pinned.
    """
    import fsspec

    name = url.rsplit("/", 1)[-1].split("?")[0]
    target = cache_folder() / "files" / sha256 / name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{name}.{os.getpid()}.partial")
    try:
        with fsspec.open(url, "rb") as remote, partial.open("wb") as local:
            while block := remote.read(1 << 20):
                local.write(block)
    except Exception as error:  # each of fsspec's back ends raises errors of its own
        partial.unlink(missing_ok=True)
        raise SourceError(
            f"{url}: cannot be fetched ({type(error).__name__}: {error}). Check the address and "
            "the network, or pass --source NAME=FILE with a copy."
        ) from error
    found = sha256_of(partial)
    if found != sha256:
        partial.unlink()
        raise SourceError(
            f"{url}: sha256 is {found}, but the recipe pins {sha256}. "
            "The file changed: pin the new sum, or restore it."
        )
    partial.replace(target)
    return target


@cache
def newest_commit(repo: str) -> str:
    """Ask the hub for the newest commit of a dataset repository, once per process.

    Raises:
        SourceError: If the hub cannot be reached or has no such repository.
    """
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(repo).sha
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _unreachable(f"hub {repo}", error) from error
    if commit is None:
        raise SourceError(f"hub {repo}: names no commit; expected one. Pin the revision.")
    return commit


def fetch_hub(repo: str, revision: str, pattern: str) -> Sequence[Path]:
    """Bring files of a Hugging Face dataset repository to the local disk.

    Args:
        repo: ``owner/name``.
        revision: A whole commit hash, so that the content can never change.
        pattern: Which files, as a shell pattern such as ``main/train-*.parquet``.

    Returns:
        Local paths, sorted by their name in the repository.

    Raises:
        SourceError: If the hub cannot be reached or no file matches.
    """
    from huggingface_hub import HfApi, hf_hub_download

    where = f"hub {repo}@{revision[:12]}"
    try:
        # `list_repo_files` says the same, but tries for 23 seconds where there is no network.
        files = HfApi().dataset_info(repo, revision=revision).siblings or []
        names = [file.rfilename for file in files]
        matching = sorted(n for n in names if fnmatch.fnmatch(n, pattern))
        if not matching:
            raise SourceError(
                f"{where}: no file matches {pattern!r}; "
                f"its files are {', '.join(sorted(names)[:20])}. Correct `files`."
            )
        return [
            Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
            for name in matching
        ]
    except SourceError:
        raise
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _unreachable(where, error) from error


def fetch_tokenizer(repo: str, revision: str) -> Path:
    """Bring the ``tokenizer.json`` of a model on the hub to the local disk.

    Raises:
        SourceError: If it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, "tokenizer.json", revision=revision))
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _unreachable(f"hub {repo}@{revision[:12]}", error) from error


def _unreachable(where: str, error: Exception) -> SourceError:
    what = (str(error) or "no reason given").splitlines()[0]
    return SourceError(
        f"{where}: cannot be fetched ({type(error).__name__}: {what}). "
        "Check the network and the name, or pass --source NAME=FILE with a copy."
    )
