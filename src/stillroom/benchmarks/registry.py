"""The registry of benchmarks: one data file for each, and sets of them by name.

A file says where the benchmark is and what is wrong with it. It holds none of its texts: they are
fetched on first use, or read from a local copy.
"""

import importlib.resources
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FOLDER = "STILLROOM_BENCHMARKS"
"""Environment variable: a folder of local copies, each named as its benchmark."""

UNPINNED = "unpinned"
"""Stands for a revision that nobody wrote down."""


class Sitting(BaseModel):
    """How a benchmark is sat and graded.

    Attributes:
        verify: The verifier that grades: ``math``, ``choice``, ``exact`` or ``code``.
        repeats: Attempts per item.
        temperature: Of the sampling.
        max_tokens: Completion tokens at most, thinking included.
        prefix: Text before the question.
        suffix: Text after the question.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verify: Literal["math", "choice", "exact", "code"]
    repeats: int = Field(1, ge=1)
    temperature: float = Field(0.7, ge=0)
    max_tokens: int = Field(32_768, ge=1)
    prefix: str = ""
    suffix: str = ""


class Benchmark(BaseModel):
    """A benchmark: what it asks, where it is, and what is wrong with it.

    Attributes:
        title: Its usual name.
        about: What it asks.
        domain: ``math``, ``code``, ``science`` or ``general``.
        items: Items in the files below; null if nobody counted them.
        role: ``develop`` or ``held_out`` as in OpenThoughts; null for neither.
        licence: Of the collection, as its place says.
        gated: Whether the hub asks for consent, and so for a token.
        hub: Dataset repository on the Hugging Face hub.
        revision: A whole commit hash; null where none is known. Then the newest is taken, and the
            run says which that was.
        files: Which files of the repository, as a pattern.
        sha256: Of the file, where one is known.
        shipped: The set in this package, instead of a place on the hub.
        question: Columns of the question; the first that a file has.
        reference: Columns of the answer; the first that a file has.
        sitting: How it is sat and graded; null where nobody can grade it yet.
        errata: What is known to be wrong with it, or with copies of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    about: str
    domain: Literal["math", "code", "science", "general"]
    items: int | None = Field(None, ge=1)
    role: Literal["develop", "held_out"] | None = None
    licence: str
    gated: bool = False
    hub: str | None = None
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    files: str | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    shipped: str | None = None
    question: tuple[str, ...]
    reference: tuple[str, ...] = ()
    sitting: Sitting | None = None
    errata: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        columns = ("question", "reference")
        return {k: [v] if k in columns and isinstance(v, str) else v for k, v in value.items()}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.hub is None) == (self.shipped is None) or (self.hub is None) != (not self.files):
            raise ValueError("expected either hub and files, or shipped")
        return self

    def source(self) -> dict[str, Any]:
        """Return the fields of `source` that say where the questions are.

        A local copy may name its column ``question``, whatever the original does.
        """
        if self.shipped:
            return {"shipped": self.shipped}
        fields: dict[str, Any] = {
            "hub": self.hub,
            "revision": self.revision or UNPINNED,
            "files": self.files,
            "question": tuple(dict.fromkeys([*self.question, "question"])),
        }
        return {**fields, "sha256": self.sha256} if self.sha256 else fields


@cache
def benchmarks() -> Mapping[str, Benchmark]:
    """Return every benchmark by its name."""
    folder = importlib.resources.files("stillroom.benchmarks") / "known"
    files = sorted((p.name, p.read_text("utf-8")) for p in folder.iterdir())
    return {
        name.removesuffix(".yaml"): Benchmark.model_validate(yaml.safe_load(text))
        for name, text in files
    }


@cache
def sets() -> Mapping[str, Sequence[str]]:
    """Return the named sets of benchmarks, each with its members."""
    file = importlib.resources.files("stillroom.benchmarks") / "sets.yaml"
    found: Mapping[str, Sequence[str]] = yaml.safe_load(file.read_text("utf-8"))
    return found


def expand(name: str) -> Sequence[str]:
    """Return the members of a set; any other name stands for itself.

    >>> expand("openthoughts_held_out")
    ['aime25', 'hmmt_feb25', 'hle', 'livecodebench_24_25']
    """
    return sets().get(name, [name])


def local_copies(names: Iterable[str]) -> dict[str, str]:
    """Find local copies in the folder that ``$STILLROOM_BENCHMARKS`` names.

    A copy is called by its benchmark: ``math500.jsonl``, ``math500.jsonl.zst``,
    ``math500.parquet``.

    Returns:
        Benchmark to path, for those that have one.
    """
    folder = os.environ.get(FOLDER)
    if not folder or not Path(folder).is_dir():
        return {}
    there = {path.name.split(".")[0]: str(path) for path in sorted(Path(folder).iterdir())}
    return {name: there[name] for name in names if name in there and name in benchmarks()}
