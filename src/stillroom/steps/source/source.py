"""`source`: questions from a file, the hub, a generator, or the package itself."""

import glob
import importlib.resources
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from stillroom.benchmarks.registry import UNPINNED
from stillroom.errors import SourceError
from stillroom.families import DOMAINS
from stillroom.rows import QUESTION, TESTS, Schema, Shape, content_id, dropped, is_plain
from stillroom.steps.base import Misfit, Out, Runtime, Step, Tick
from stillroom.steps.source.asked import asked
from stillroom.steps.source.fetch import (
    COMMIT,
    Named,
    fetch_hub,
    fetch_url,
    mixed_in,
    newest_commit,
)
from stillroom.steps.source.files import (
    TABLES,
    Broken,
    Record,
    format_of,
    read_records,
    sha256_of,
)
from stillroom.steps.source.generators import Gym, Procedural
from stillroom.steps.source.stackexchange import dump_url, read_posts
from stillroom.store.artifact import Delta
from stillroom.store.table import Table
from stillroom.text.answers import last_boxed
from stillroom.verifiers.code_tests import TestForm, parse_tests

BENCHMARKS = ("proxy_suite",)
"""Shipped sets that are for evaluation alone, and so can be no source."""

OWN_LICENCE = "apache-2.0"
"""Of what Stillroom ships and generates, and of the tasks of reasoning-gym."""

SHARD = 50_000
"""Questions per shard: about 25 MB of text."""

ColumnType = Literal["text", "integer", "number", "boolean"]
TYPES: Mapping[ColumnType, pl.DataType] = {
    "text": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
}


class Source(Step):
    r"""Questions and where they come from.

    Exactly one of ``file``, ``hub``, ``stackexchange``, ``procedural``, ``gym`` and ``shipped``
    says where.

    Attributes:
        file: Path, pattern or URL of JSON Lines, JSON, CSV or Parquet. A path is looked up from
            the folder in which the command runs. A URL needs ``sha256``.
        sha256: What the file must be; with ``hub``, if ``files`` is one file; with
            ``stackexchange``, the dump.
        hub: A dataset on the Hugging Face hub, ``owner/name``, with ``revision`` and ``files``.
        revision: A whole commit hash; a branch would change under the recipe. ``unpinned`` takes
            the newest commit, and the dataset card says which that was: for public recipes whose
            authors wrote none down.
        files: Which files of the repository, such as ``main/train-*.parquet``; all that can be read
            where ``config`` or ``split`` says which.
        config: A config that the repository declares in its README, such as ``main``. Where
            ``files`` are of several, the run warns and the notes name them.
        split: A split, such as ``train``: as declared, or by the names of the files.
        stackexchange: A site of Stack Exchange, such as ``physics``: the questions of its dump,
            which is fetched if ``sha256`` is given, and else comes by ``--source``. Posts also have
            ``title``, ``tags``, ``score``, ``post``, ``created`` and ``licence`` for ``columns``.
        procedural: Task families of our own.
        gym: A task of the reasoning-gym package.
        shipped: A set that comes with the package; its questions of the recipe's domain, or all
            if that is none of math, code and science.
        question: Column of the question; of several, the first that the file has. Of a list of
            messages the first one of the user is the question.
        reference: Column of the known answer; of several, the first that the file has. By default
            ``reference``, where the file has it. Of a list with one answer that answer is taken; a
            list of several is no reference, and the notes count such rows.
        reference_in: Where in that column the answer stands: the ``last_boxed`` ``\boxed{}``, or
            ``after_hashes``, behind the last ``####``. A text without the mark is taken whole.
        tests: Where the file keeps tests of programs, and what they are: ``{column: NAME, kind:
            asserts}``. They become the column ``tests``, which ``verify: code`` reads.
        columns: Further columns to keep, with their types; a plain list means text. A value that is
            not of its type, such as 3.5 for ``integer`` or NaN, is null, and the notes count it.
            Lists and mappings become JSON as text.
        licence: Licence of the rows, or ``{column: NAME}`` if each row says its own; Apache-2.0 for
            what is shipped or generated, and unknown for a file that stands in for such rows.
        domain: Filled in by the recipe.
    """

    STEP: ClassVar[str] = "source"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "rows"
    ORIGINS: ClassVar[tuple[str, ...]] = (
        "file", "hub", "stackexchange", "procedural", "gym", "shipped",
    )  # fmt: skip
    HEAVY: ClassVar[int | None] = None  # bytes of tests after which a shard is full

    file: str | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = None
    files: str | None = None
    config: str | None = Field(None, min_length=1)
    split: str | None = Field(None, min_length=1)
    stackexchange: str | None = Field(None, pattern=r"^[a-z0-9]+(\.[a-z0-9]+)*$")
    procedural: Procedural | None = None
    gym: Gym | None = None
    shipped: Literal["word_problems", "planted_copies", "proxy_suite"] | None = None
    question: tuple[str, ...] = ("question",)
    reference: tuple[str, ...] | None = None
    reference_in: Literal["last_boxed", "after_hashes"] | None = None
    tests: TestForm | None = None
    columns: Mapping[str, ColumnType] = {}
    licence: str | Mapping[Literal["column"], str] | None = None
    domain: str = ""

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare string as a file."""
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        value = dict(value)
        for name in ("question", "reference"):
            if isinstance(value.get(name), str):
                value[name] = [value[name]]
        if isinstance(value.get("columns"), list | tuple):
            value["columns"] = dict.fromkeys(value["columns"], "text")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> "Source":
        given = [name for name in self.ORIGINS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'none'} of {', '.join(self.ORIGINS)} given; expected one"
            )
        pinned = self.revision and COMMIT.fullmatch(self.revision)
        if self.hub and not pinned and self.revision != UNPINNED:
            raise ValueError(
                f"revision is {self.revision!r}; expected the 40 digits of a commit, "
                f"because a branch changes under the recipe, or {UNPINNED}"
            )
        if self.hub and not (self.files or self.config or self.split):
            raise ValueError(
                "files is missing; expected a pattern such as main/train-*.parquet, or a config or "
                "a split of the repository"
            )
        if not self.hub and (self.config or self.split):
            raise ValueError("config and split go with hub, and only with it")
        if self.file and "://" in self.file and not self.sha256:
            raise ValueError("sha256 is missing; expected the sum of the file behind the URL")
        clash = set(self.columns) & {*QUESTION, *(TESTS if self.tests else ())}
        if clash:
            raise ValueError(
                f"columns names {', '.join(sorted(clash))}, which every question has already"
            )
        if odd := [name for name in self.columns if not is_plain(name)]:
            raise ValueError(f"columns names {odd[0]!r}; expected the name of one column")
        if "copy_of" in self.columns:
            raise ValueError("columns names copy_of, which `upsample` and `mix` write")
        return self

    @property
    def name(self) -> str:
        """What the rows' ``source`` column says."""
        if self.as_:
            return self.as_
        if self.file:
            return Path(self.file).name.split(".")[0]
        if self.stackexchange:
            return f"stackexchange_{self.stackexchange.replace('.', '_')}"
        if self.gym:
            return f"reasoning-gym/{self.gym.task}"
        return self.hub or self.shipped or "procedural"

    def identity(self) -> dict[str, Any]:
        """Return the fields; the name is among them, because rows carry it."""
        fields = {**super().identity(), "name": self.name}
        # Absent fields are left out, so that they change no key of recipes that lack them.
        for name in ("config", "split", "stackexchange", "tests"):
            if getattr(self, name) is None:
                del fields[name]
        if self.tests and self.tests.limits.total_cpu_s is None:
            del fields["tests"]["limits"]["total_cpu_s"]
        return fields

    def outside(self, rt: Runtime) -> str | None:
        """Digest what is read or generated, where the fields do not pin it."""
        unpinned = (self.file or self.stackexchange) and not self.sha256
        if self.name in rt.sources or self.shipped or unpinned:
            return content_id(*[sha256_of(p) for p in self._paths(rt)])
        if self.hub and self.revision == UNPINNED:
            return content_id(newest_commit(self.hub))
        generator = self.procedural or self.gym
        return content_id(generator.release) if generator else None

    def notes(self, rt: Runtime) -> list[str]:
        """Say what the recipe does not: which commit was read, and whether it was read at all."""
        if self.name in rt.sources:
            return [f"{self.name}: a local file stood in for what the recipe names (--source)."]
        if self.hub and self.revision == UNPINNED:
            unpinned = [f"{self.name}: no revision is pinned; read at {newest_commit(self.hub)}."]
        else:
            unpinned = []
        return unpinned + self._mixed(rt)

    def _mixed(self, rt: Runtime) -> list[str]:
        """Say which configs and splits of a repository are read, if several are."""
        if not self.hub or self.name in rt.sources:
            return []
        found = mixed_in(self.hub, self._commit(self.hub), self._named_files)
        return [f"{self.name}: its files are of {found}."] if found else []

    def _commit(self, hub: str) -> str:
        return newest_commit(hub) if self.revision == UNPINNED else str(self.revision)

    @property
    def _named_files(self) -> Named:
        return Named(self.files, self.config, self.split)

    def named(self) -> Sequence[str]:
        """Name the source."""
        return (self.name,)

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read nothing that is in the store."""
        return ()

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Check that nothing stands before the source."""
        if self.shipped in BENCHMARKS:
            raise Misfit(
                f"source.shipped is {self.shipped!r}, a benchmark; expected questions to train on. "
                "Name it in `decontaminate`"
            )
        if shapes:
            raise Misfit(
                "source stands after other steps; expected it first. To use several sources, "
                "put each into a branch of `mix`"
            )
        return Shape("questions", self.writes(shapes))

    def writes(self, shapes: Sequence[Shape]) -> Schema:
        """Write the columns of a question, and those that the recipe keeps."""
        kept: dict[str, pl.DataType] = {n: TYPES[t] for n, t in self.columns.items()}
        generator = self.procedural or self.gym
        return {
            **QUESTION,
            **(TESTS if self.tests else {}),
            **kept,
            **(generator.COLUMNS if generator else {}),
        }

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Know how many questions a generator makes."""
        generator = self.procedural or self.gym
        return generator.n if generator else None

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Read, name and write the questions."""
        schema = self.writes(())
        rows: list[dict[str, Any]] = []
        lost: list[tuple[str, str, str]] = []
        seen: Counter[str] = Counter()
        unfit: Counter[str] = Counter()
        why: Counter[str] = Counter()
        shard = total = weight = 0
        ours = not (self.hub or self.file or self.name in rt.sources)
        for note in self._mixed(rt):
            rt.tick(Tick(warning=f"{note} Name one by `config` or `split`, or fewer `files`."))

        def flush() -> None:
            nonlocal shard, rows, lost, weight
            if not out.has(shard):
                frame = pl.DataFrame(rows, schema=dict(schema), orient="row")
                ids, reasons, places = zip(*lost, strict=True) if lost else ((), (), ())
                drops = dropped(list(ids), list(reasons), witness=list(places))
                out.write(shard, frame, rows_in=len(rows) + len(lost), lost=drops)
            rt.tick(Tick(rows=len(rows) + len(lost)))
            shard, rows, lost, weight = shard + 1, [], [], 0

        for number, record in enumerate(self._records(rt)):
            total += 1
            if isinstance(record, Broken):
                row_id = content_id(self.name, record.place, str(record.raw))
                lost.append((row_id, record.reason, record.place))
                why[record.reason] += 1
            else:
                row = self._row(record, number, unfit, ours=ours)
                content = content_id(
                    self.name, row["question"], row["reference"],
                    *[row["tests"]] if self.tests else [],
                )  # fmt: skip
                seen[content] += 1
                # A source may hold a question twice; each copy is a row of its own until `dedup`
                # says otherwise, so the second copy's name says that it is the second.
                row["id"] = content if seen[content] == 1 else content_id(content, seen[content])
                if row["question"] is None or not row["question"].strip():
                    lost.append((row["id"], "no_question", f"row {number}"))
                else:
                    rows.append(row)
                    weight += len(row.get("tests") or "")
            if len(rows) + len(lost) == SHARD or (self.HEAVY and weight > self.HEAVY):
                flush()
        if rows or lost or not shard:
            flush()
        if not total:
            raise SourceError(
                f"source {self.name}: no rows. Check that it is the right file, and not empty."
            )
        if sum(seen.values()) == 0:
            raise SourceError(
                f"source {self.name}: none of {total:,} rows could be read "
                f"({', '.join(f'{n:,} {reason}' for reason, n in sorted(why.items()))}). "
                "Check the format."
            )
        return self.notes(rt) + [
            f"{n:,} values of the column {c} are not of type {self._type(c)}; they are null."
            for c, n in sorted(unfit.items())
            if n
        ]

    def _records(self, rt: Runtime) -> Iterator[Record | Broken]:
        if self.name not in rt.sources:
            generator = self.procedural or self.gym
            if generator:
                yield from generator.records(self.domain)
                return
        yield from self._from_files(rt)

    def questions(self, rt: Runtime) -> Iterator[tuple[int, str] | Broken]:
        """Read only the texts, with their places in the source; for benchmarks.

        Raises:
            SourceError: If the source cannot be read.
        """
        for number, record in enumerate(self._records(rt)):
            if isinstance(record, Broken):
                yield record
            else:
                yield number, _question(_first(record, self.question)) or ""

    def _wanted(self) -> list[str]:
        """Name the columns that are read."""
        wanted = [*self.question, *self._reference_columns, *self.columns]
        if self.tests:
            wanted += [name for name in (self.tests.column, self.tests.setup) if name]
        if isinstance(self.licence, Mapping):
            wanted.append(self.licence["column"])
        return wanted

    def _required(self) -> list[Sequence[str]]:
        """Name the columns of which a file must have one, each list of choices in turn."""
        tests = (self.tests.column,) if self.tests else ()
        return [names for names in (self.question, self.reference or (), tests) if names]

    def _from_files(self, rt: Runtime) -> Iterator[Record | Broken]:
        wanted = self._wanted()
        named = self.licence.values() if isinstance(self.licence, Mapping) else ()
        absent = {*self.columns, *named}
        paths, read = self._paths(rt), False
        # A file that stands in for a shipped set need not say of which domain a row is.
        of_domain = self.shipped and self.domain in DOMAINS and self.name not in rt.sources
        for path in paths:
            records = read_posts(path) if self.stackexchange else read_records(path, wanted)
            for record in self._checked(records, path):
                if absent and not isinstance(record, Broken):
                    absent, read = absent - record.keys(), True
                if of_domain:
                    if not isinstance(record, Broken) and record["domain"] == self.domain:
                        yield record
                else:
                    yield record
        # Objects of JSON may leave out what is null; tables name all their columns.
        tables = not self.stackexchange and all(format_of(p.name) in TABLES for p in paths)
        if absent and read and tables:
            raise SourceError(
                f"{', '.join(str(path) for path in paths[:3])}: no row has a column "
                f"{' or '.join(sorted(absent))}. Name the right one in the recipe, or leave it out."
            )

    def _checked(self, records: Iterable[Record | Broken], path: Path) -> Iterator[Record | Broken]:
        """Complain about a missing column once, at the first record, and not at every row."""
        first = True
        for record in records:
            if first and not isinstance(record, Broken):
                first = False
                for choices in self._required():
                    if not any(c in record for c in choices):
                        raise SourceError(
                            f"{path}: no column {' or '.join(choices)}; its columns are "
                            f"{', '.join(record)}. Name the right one in the recipe."
                        )
            yield record

    def _paths(self, rt: Runtime) -> Sequence[Path]:
        override = rt.sources.get(self.name)
        if override is not None:
            return _local(override)
        if self.hub:
            paths = fetch_hub(self.hub, self._commit(self.hub), self._named_files)
            self._check_sum(f"{self.hub}: {self.files or self.split or self.config}", paths)
            return paths
        if self.stackexchange:
            return [self._dump(self.stackexchange)]
        if self.shipped:
            package = "benchmarks" if self.shipped in BENCHMARKS else "steps.source"
            folder = importlib.resources.files(f"stillroom.{package}")
            return [Path(str(folder / f"{self.shipped}.jsonl"))]
        if self.file and "://" in self.file:
            format_of(self.file.rsplit("/", 1)[-1].split("?")[0])
            return [fetch_url(self.file, str(self.sha256))]
        paths = _local(str(self.file))
        self._check_sum(str(self.file), paths)
        return paths

    def _dump(self, site: str) -> Path:
        if self.sha256:
            return fetch_url(dump_url(site), self.sha256)
        raise SourceError(
            f"source {self.name}: no dump is at hand, and no sha256 is given to fetch one by. "
            f"Download {dump_url(site)} and pass --source {self.name}=FILE."
        )

    def _check_sum(self, where: str, paths: Sequence[Path]) -> None:
        if self.sha256 and [sha256_of(p) for p in paths] != [self.sha256]:
            raise SourceError(
                f"{where}: sha256 is {sha256_of(paths[0])}, but the recipe pins {self.sha256}. "
                "The file changed: pin the new sum, or restore it."
            )

    def _row(
        self, record: Record, number: int, unfit: Counter[str], *, ours: bool
    ) -> dict[str, Any]:
        licence = self.licence
        if licence is None and self.stackexchange:
            licence = _text(record.get("licence"))
        elif licence is None and ours:
            licence = OWN_LICENCE
        if isinstance(licence, Mapping):
            licence = _text(record.get(licence["column"]))
        known = _first(record, self._reference_columns)
        several = _several(known)
        unfit["reference"] += several
        row: dict[str, Any] = {
            "domain": self.domain,
            "source": self.name,
            "licence": licence,
            "question": _question(_first(record, self.question)),
            "reference": None if several else self._reference(_text(_alone(known))),
            "row": number,
        }
        if self.tests:
            row["tests"] = self._tests(record, self.tests)
            unfit["tests"] += row["tests"] is None and record.get(self.tests.column) is not None
        for name, kind in self.columns.items():
            value = record.get(name)
            row[name] = _convert(value, kind)
            unfit[name] += row[name] is None and value is not None
        generator = self.procedural or self.gym
        if generator:
            row.update({name: record.get(name) for name in generator.COLUMNS})
        return row

    def _tests(self, record: Record, form: TestForm) -> str | None:
        value = record.get(form.column)
        if value is None:
            return None
        setup = _text(record.get(form.setup)) if form.setup else None
        try:
            return parse_tests(value, form, setup or "").text()
        except ValueError:
            return None

    def _type(self, column: str) -> str:
        if self.tests and column == "tests":
            return f"tests of kind {self.tests.kind}"
        return "text or a list of one" if column == "reference" else self.columns[column]

    @property
    def _reference_columns(self) -> tuple[str, ...]:
        if self.reference is not None:
            return self.reference
        return ("answer",) if self.shipped else ("reference",)

    def _reference(self, text: str | None) -> str | None:
        if text is None or not text.strip():
            return None
        if self.reference_in == "after_hashes" and "####" in text:
            return text.rsplit("####", 1)[1].strip() or None
        if self.reference_in == "last_boxed":
            return last_boxed(text) or text.strip()
        return text.strip()


def _local(pattern: str) -> Sequence[Path]:
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))  # noqa: PTH207  # absolute patterns too
    if not found:
        raise SourceError(f"{pattern}: no such file. Check the path, or pass --source NAME=FILE.")
    return found


def _first(record: Record, names: Sequence[str]) -> object:
    return next((record[n] for n in names if record.get(n) is not None), None)


def _question(value: object) -> str | None:
    return asked(value) if isinstance(value, list) else _text(value)


def _several(value: object) -> bool:
    """Tell whether a value holds more than one answer, or none that could be told."""
    return isinstance(value, dict) or (isinstance(value, list) and len(value) > 1)


def _alone(value: object) -> object:
    """Take the one value out of a list that holds no other."""
    return next(iter(value), None) if isinstance(value, list) else value


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    # A lone surrogate cannot be written as UTF-8; it is shown as a question mark.
    return str(value).encode("utf-8", "replace").decode()


def _convert(value: object, kind: ColumnType) -> object:
    """Return a value as a type has it; None where it is not of that type."""
    if value is None:
        return None
    try:
        match kind:
            case "text":
                return _text(value)
            case "integer":
                whole = int(value)  # type: ignore[call-overload]  # any type that int() takes
                cut = not isinstance(value, str) and whole != value
                return whole if not cut and -(2**63) <= whole < 2**63 else None
            case "number":
                number = float(value)  # type: ignore[arg-type]  # any type that float() takes
                return None if math.isnan(number) else number
            case "boolean":
                return value if isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        return None
