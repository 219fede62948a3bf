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
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stillroom.errors import SourceError

FOLDER = "STILLROOM_BENCHMARKS"
"""Environment variable: a folder of local copies, each named as its benchmark."""

TESTS = "_tests"
"""Behind a benchmark's name: the dataset of its tests, where that is another."""

UNPINNED = "unpinned"
"""Stands for a revision that nobody wrote down."""


class Only(BaseModel):
    """Which rows of a file are sat, by the text of a column; a value that is absent is "".

    Attributes:
        is_: Values that fit, as ``is``.
        has: Text that the value holds.
        from_: Least value, as ``from``; dates are written year first.
        before: Value that every value lies before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_alias=True)

    is_: tuple[str, ...] | None = Field(None, alias="is")
    has: str | None = None
    from_: str | None = Field(None, alias="from")
    before: str | None = None

    def fits(self, value: object) -> bool:
        """Tell whether a row with this value is sat."""
        text = "" if value is None else str(value)
        return (
            (self.is_ is None or text in self.is_)
            and (self.has is None or self.has in text)
            and (self.from_ is None or text >= self.from_)
            and (self.before is None or text < self.before)
        )


class Options(BaseModel):
    """Where the options of a multiple-choice item stand.

    Either ``right`` and ``wrong``, and their order is made here; or ``listed``, in the order of
    their letters, and the item's answer is a letter.

    Attributes:
        right: Column of the right option.
        wrong: Columns of the others.
        listed: Column of a list of all options.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    right: str | None = None
    wrong: tuple[str, ...] = ()
    listed: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [self.right is not None, bool(self.wrong), self.listed is not None]
        if given not in ([True, True, False], [False, False, True]):
            raise ValueError("expected either right and wrong, or listed")
        return self


class Cases(BaseModel):
    """Where the tests of a benchmark are, if they are not beside its questions.

    Attributes:
        hub: Dataset repository on the Hugging Face hub.
        revision: A whole commit hash; null where none is known.
        files: Which files of the repository, as a pattern.
        file: Local files, instead of a place on the hub.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hub: str | None = None
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    files: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.hub is None) != (self.files is None) or (self.hub is None) == (self.file is None):
            raise ValueError("expected either hub with files, or file")
        return self

    def source(self) -> dict[str, Any]:
        """Return the fields of `source` that say where the tests are."""
        if self.file:
            return {"file": self.file}
        return {"hub": self.hub, "revision": self.revision or UNPINNED, "files": self.files}


class Sitting(BaseModel):
    """How a benchmark is sat and graded.

    Attributes:
        verify: What the step `verify` takes: a word, or the stages of a cascade.
        repeats: Attempts per item.
        temperature: Of the sampling.
        max_tokens: Completion tokens at most, thinking included.
        prefix: Text before the question.
        suffix: Text after the question.
        form: Reader of its rows, where naming columns is not enough: `stillroom.evaluate.forms`.
        items: Items that are sat, where those are not all.
        files: Which files are sat, where others stand beside them.
        where: Which rows are sat, by column.
        options: Where the options of its items stand.
        tests: Where the tests of its items stand; see `tests` of the step `source`.
        cases: Where the tests are, if another dataset has them. A local copy is named as the
            benchmark, with ``_tests`` behind it.
        reference_in: Where in its column the known answer stands; see the step `source`.
        credit: ``letters`` gives a quarter for each right letter where several are right, not all
            are given, and none that is given is wrong; ``points`` the share of points that a
            program earned.
        once: Whether an item that repeats another is left out; else it is refused.
        says: What a score on it is, where that is not what its name promises.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verify: str | tuple[str | Mapping[str, Any], ...]
    repeats: int = Field(1, ge=1)
    temperature: float = Field(0.7, ge=0)
    max_tokens: int = Field(32_768, ge=1)
    prefix: str = ""
    suffix: str = ""
    form: Literal["livecodebench", "codeforces", "codeelo", "ioi", "jeebench"] | None = None
    items: int | None = Field(None, ge=1)
    files: str | None = None
    where: Mapping[str, Only] = Field(default_factory=dict)
    options: Options | None = None
    tests: Mapping[str, Any] | None = None
    cases: Cases | None = None
    reference_in: Literal["last_boxed", "after_hashes"] | None = None
    credit: Literal["letters", "points"] | None = None
    once: bool = False
    says: str | None = None


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
        file: A local file of items, instead of a place on the hub.
        question: Columns of the question; the first that a file has.
        reference: Columns of the answer; the first that a file has.
        sitting: How it is sat and graded; null where nobody can grade it yet.
        errata: What is known to be wrong with it, or with copies of it.
        protocol: Where its sitting differs from that of the paper, and which traps that avoids.
        unverified: What nobody could check when this file was written.
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
    file: str | None = None
    question: tuple[str, ...]
    reference: tuple[str, ...] = ()
    sitting: Sitting | None = None
    errata: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        columns = ("question", "reference")
        return {k: [v] if k in columns and isinstance(v, str) else v for k, v in value.items()}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = [place for place in (self.hub, self.shipped, self.file) if place is not None]
        if len(places) != 1 or (self.hub is None) != (not self.files):
            raise ValueError("expected one of hub with files, file and shipped")
        return self

    @property
    def sat(self) -> int | None:
        """Items of a sitting, as far as they were counted."""
        return (self.sitting.items if self.sitting else None) or self.items

    def source(self) -> dict[str, Any]:
        """Return the fields of `source` that say where the questions are.

        A local copy may name its column ``question``, whatever the original does.
        """
        if self.shipped:
            return {"shipped": self.shipped}
        fields: dict[str, Any] = {"question": tuple(dict.fromkeys([*self.question, "question"]))}
        if self.file:
            fields["file"] = self.file
        else:
            place = {"hub": self.hub, "revision": self.revision or UNPINNED, "files": self.files}
            fields = {**place, **fields}
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


def read_benchmark(path: Path) -> Benchmark:
    """Read a benchmark of one's own; a relative ``file`` in it is beside it.

    Raises:
        SourceError: If it cannot be read, or is no benchmark.
    """
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
        if not isinstance(data, dict):
            raise ValueError(f"a {type(data).__name__}; expected fields and their values")
        benchmark = Benchmark.model_validate(data)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; expected a benchmark. Check the path.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the benchmark"
        match first["type"]:
            case "extra_forbidden":
                wrong = " is no field"
            case "missing":
                wrong = " is missing; expected one"
            case "value_error":
                wrong = f": {first['ctx']['error']}"
            case _:
                wanted = first["msg"].replace("Input should be", "expected")
                wrong = f" is {first['input']!r}; {wanted}"
        raise SourceError(
            f"{path}: {where}{wrong}. See docs/benchmarks.md for the fields."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SourceError(f"{path}: cannot be read ({error}); expected a benchmark.") from None
    if benchmark.file and "://" not in benchmark.file:
        beside = str(path.parent / Path(benchmark.file).expanduser())
        benchmark = benchmark.model_copy(update={"file": beside})
    if benchmark.sitting and benchmark.sitting.cases and benchmark.sitting.cases.file:
        beside = str(path.parent / Path(benchmark.sitting.cases.file).expanduser())
        cases = benchmark.sitting.cases.model_copy(update={"file": beside})
        sitting = benchmark.sitting.model_copy(update={"cases": cases})
        benchmark = benchmark.model_copy(update={"sitting": sitting})
    return benchmark


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
    known = benchmarks()
    return {
        name: there[name]
        for name in names
        if name in there and (name in known or name.removesuffix(TESTS) in known)
    }
