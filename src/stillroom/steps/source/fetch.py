"""Remote files brought to the local disk, once, and checked against what the recipe pins."""

import fnmatch
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from stillroom.errors import SourceError
from stillroom.steps.source.configs import Config, NoSuchPart, chosen, configs_of, mixed
from stillroom.steps.source.files import readable, sha256_of

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


class Named(NamedTuple):
    """Which files of a dataset repository are meant.

    Attributes:
        pattern: A shell pattern such as ``main/train-*.parquet``; None for all that can be read.
        config: A config that the repository declares; None for any.
        split: Such as ``train``; None for any.
    """

    pattern: str | None = None
    config: str | None = None
    split: str | None = None


def fetch_hub(repo: str, revision: str, files: Named) -> Sequence[Path]:
    """Bring files of a Hugging Face dataset repository to the local disk.

    Args:
        repo: ``owner/name``.
        revision: A whole commit hash, so that the content can never change.
        files: Which files.

    Returns:
        Local paths, sorted by their name in the repository.

    Raises:
        SourceError: If the hub cannot be reached, or has no such file, config or split.
    """
    from huggingface_hub import hf_hub_download

    names, _ = _meant(repo, revision, files)
    try:
        return [
            Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
            for name in names
        ]
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _unreachable(f"hub {repo}@{revision[:12]}", error) from error


def mixed_in(repo: str, revision: str, files: Named) -> str | None:
    """Say of which configs and splits some files are, if they are of several; None if of one.

    Raises:
        SourceError: If the hub cannot be reached, or has no such file, config or split.
    """
    names, configs = _meant(repo, revision, files)
    return mixed(names, configs)


def _meant(repo: str, revision: str, files: Named) -> tuple[list[str], list[Config]]:
    """Return the names of the files that are meant, and the configs of the repository."""
    where = f"hub {repo}@{revision[:12]}"
    names, configs = _listed(repo, revision)
    if files.pattern is None:
        matching = [n for n in names if readable(n)]
    else:
        matching = [n for n in names if fnmatch.fnmatch(n, files.pattern)]
    if not matching:
        raise SourceError(
            f"{where}: no file matches {files.pattern or 'a format that is read'!r}; "
            f"its files are {', '.join(names[:20])}. Correct `files`."
        )
    if files.config is None and files.split is None:
        return matching, configs
    try:
        return chosen(matching, configs, files.config, files.split), configs
    except NoSuchPart as error:
        raise SourceError(f"{where}: {error}, or name its `files`.") from None


@cache
def _listed(repo: str, revision: str) -> tuple[list[str], list[Config]]:
    """List the files and configs of a repository at a commit, once per process."""
    from huggingface_hub import HfApi

    try:
        # `list_repo_files` says the same, but tries for 23 seconds where there is no network.
        info = HfApi().dataset_info(repo, revision=revision)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _unreachable(f"hub {repo}@{revision[:12]}", error) from error
    names = sorted(file.rfilename for file in info.siblings or [])
    said = vars(info.card_data) if info.card_data else {}
    return names, configs_of(names, said.get("configs"))


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
