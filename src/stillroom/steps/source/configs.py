"""Configs and splits of a dataset repository on the Hugging Face hub: which files they are.

A repository names its configs, and the files of their splits, in the metadata of its README. Where
it says nothing of splits, they follow from words in the names of files, as they do for `datasets`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_WILD = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^]/]+\])")
_SHOWN = 8


class NoSuchPart(ValueError):
    """A config or a split that a repository does not have; the message says what it has."""


@dataclass(frozen=True)
class Config:
    """One config.

    Attributes:
        name: Its name.
        files: File to its split; None where nothing tells the split.
    """

    name: str
    files: Mapping[str, str | None]


def configs_of(names: Sequence[str], declared: Any) -> list[Config]:
    """Find the files of each config.

    Args:
        names: Files of the repository.
        declared: ``configs`` of the README's metadata, whatever stands there.

    Returns:
        The configs that are declared, in their order; those without files are left out.
    """
    found = []
    for entry in declared if isinstance(declared, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("config_name"), str):
            continue
        files: dict[str, str | None] = {}
        for split, pattern in _patterns(entry):
            whole = _expression(pattern)
            files |= {n: split or split_of(n) for n in names if whole.fullmatch(n)}
        if files:
            found.append(Config(entry["config_name"], files))
    return found


def chosen(
    names: Sequence[str], configs: Sequence[Config], config: str | None, split: str | None
) -> list[str]:
    """Return the files of a config, of a split, or of the split of a config.

    Args:
        names: Files to choose from.
        configs: Of the repository.
        config: None for files of any.
        split: None for all.

    Raises:
        NoSuchPart: If there is no such config or split.
    """
    splits: dict[str, str | None]
    if config is not None:
        known = {one.name: one for one in configs}
        if config not in known:
            raise NoSuchPart(f"no config {config!r}; {_these('configs', known)}. Correct `config`")
        splits = {n: s for n, s in known[config].files.items() if n in set(names)}
    else:
        declared = {n: s for one in configs for n, s in one.files.items()}
        splits = {n: declared.get(n) or split_of(n) for n in names}
    left = [n for n, s in splits.items() if split in (None, s)]
    if split is not None and not left:
        there = sorted({s for s in splits.values() if s})
        raise NoSuchPart(f"no split {split!r}; {_these('splits', there)}. Correct `split`")
    return sorted(left)


def mixed(names: Sequence[str], configs: Sequence[Config]) -> str | None:
    """Say which configs and splits some files are of, if they are of several; None if of one.

    Configs may overlap: files that all are of one config are not mixed.
    """
    whole = next((one for one in configs if set(names) <= set(one.files)), None)
    parts: Counter[str] = Counter()
    kinds: dict[str, set[str]] = {"configs": set(), "splits": set()}
    for name in names:
        own = whole or next((one for one in configs if name in one.files), None)
        split = (own.files[name] if own else None) or split_of(name)
        kinds["configs"] |= {own.name} if own else set()
        kinds["splits"] |= {split} if split else set()
        words = [split or "files", *([f"of {own.name}"] if own else ())]
        parts[" ".join(words)] += 1
    several = [f"{len(found)} {kind}" for kind, found in kinds.items() if len(found) > 1]
    if not several:
        return None
    shown = [f"{part} ({n})" for part, n in sorted(parts.items())]
    more = ", …" if len(shown) > _SHOWN else ""
    return f"{' and '.join(several)}: {', '.join(shown[:_SHOWN])}{more}"


def split_of(name: str) -> str | None:
    """Tell the split of a file by its name, the folders that it lies in last.

    >>> split_of("main/train-00000-of-00001.parquet"), split_of("test/algebra.jsonl")
    ('train', 'test')
    """
    for part in reversed(name.split("/")):
        for word in re.split(r"[-._ ]", part):
            if word.lower() in _WORDS:
                return _WORDS[word.lower()]
    return None


def _patterns(entry: Mapping[str, Any]) -> Iterator[tuple[str | None, str]]:
    """Yield splits and patterns of files as a config declares them."""
    folder = entry.get("data_dir")
    prefix = f"{folder.strip('/')}/" if isinstance(folder, str) and folder.strip("/.") else ""
    given = entry.get("data_files")
    if given is None and prefix:
        given = "**"
    if isinstance(given, Mapping):
        given = [{"split": split, "path": path} for split, path in given.items()]
    for one in given if isinstance(given, list) else [given]:
        split = one.get("split") if isinstance(one, dict) else None
        paths = one.get("path") if isinstance(one, dict) else one
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str):
                yield split if isinstance(split, str) else None, prefix + path


def _expression(pattern: str) -> re.Pattern[str]:
    """Return what a pattern of the hub means: ``*`` stays within a folder, ``**`` does not."""
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = _WILD.split(pattern.removeprefix("./"))
    words = (
        meant.get(part) or (part.replace("[!", "[^") if place % 2 else re.escape(part))
        for place, part in enumerate(parts)
    )
    try:
        return re.compile("".join(words))
    except re.error:  # a strange class of characters
        return re.compile(re.escape(pattern))


def _these(kind: str, names: Any) -> str:
    return f"its {kind} are {', '.join(names)}" if names else f"it names no {kind}"
