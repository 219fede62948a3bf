"""What benchmarks a dataset asks: a report on files, ours or anybody's, without a recipe."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from stillroom.errors import SourceError
from stillroom.steps.decontaminate.items import Items
from stillroom.steps.decontaminate.search import Search, quotation
from stillroom.steps.source.asked import ASKERS, ROLES, TEXTS, asked
from stillroom.steps.source.files import SUFFIXES, Broken, format_of, read_records

COLUMNS = ("question", "problem", "prompt", "instruction", "messages", "conversations")
"""Where datasets keep what is asked, in the order in which the columns are looked for."""

BATCH = 10_000
"""Rows that are searched at once."""

EXAMPLES = 3
"""Hits quoted for each benchmark, at most: those with the highest scores."""


@dataclass(frozen=True)
class Hit:
    """A row that asks a benchmark's item.

    Attributes:
        file: Name of the file, from the dataset's folder.
        row: Its place in the file, from 0.
        method: What found it.
        score: Similarity in percent, or the length of the run.
        item: Benchmark and place in it.
        quote: What both share.
        question: The beginning of the row's question.
    """

    file: str
    row: int
    method: str
    score: float
    item: str
    quote: str
    question: str


@dataclass
class Tally:
    """What was found of one benchmark.

    Attributes:
        items: Its items.
        rows: Rows that ask one of them.
        by_method: Method to rows.
        asked: Items that some row asks.
        examples: The clearest hits.
    """

    items: int
    rows: int = 0
    by_method: Counter[str] = field(default_factory=Counter)
    asked: set[str] = field(default_factory=set)
    examples: list[Hit] = field(default_factory=list)

    def add(self, hits: Sequence[Hit]) -> None:
        """Add the hits of one row."""
        self.rows += 1
        self.by_method.update({hit.method for hit in hits})
        self.asked.update(hit.item for hit in hits)
        # A stable sort: of equal scores, the first rows of the dataset stay.
        both = sorted([*self.examples, hits[0]], key=lambda hit: -hit.score)
        self.examples = both[:EXAMPLES]


@dataclass
class Report:
    """What benchmarks a dataset asks.

    Attributes:
        dataset: The path that was searched.
        rows: Rows that were searched.
        contaminated: Rows that ask an item of any benchmark.
        unread: Rows without a question, and lines that could not be read.
        benchmarks: Name to what was found.
        missing: Benchmarks that could not be read and were left out, each with the reason.
    """

    dataset: str
    rows: int = 0
    contaminated: int = 0
    unread: int = 0
    benchmarks: dict[str, Tally] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "dataset": self.dataset,
            "rows": self.rows,
            "contaminated": self.contaminated,
            "unread": self.unread,
            "benchmarks": {
                name: {
                    "items": tally.items,
                    "items_asked": len(tally.asked),
                    "asked": sorted(int(name.rsplit(":", 1)[1]) for name in tally.asked),
                    "rows": tally.rows,
                    "by_method": dict(sorted(tally.by_method.items())),
                    "examples": [vars(hit) for hit in tally.examples],
                }
                for name, tally in self.benchmarks.items()
            },
            "missing": self.missing,
        }


def examine(
    dataset: Path,
    search: Search,
    *,
    column: str | None = None,
    tick: Callable[[int], None] = lambda done: None,
) -> Report:
    """Search a dataset for benchmark items, batch by batch.

    Args:
        dataset: A file, or a folder of Parquet, JSON Lines or CSV files; of a folder with a
            ``data`` folder in it, only the files in there.
        search: What to look for.
        column: Where the question stands; by default the first of `COLUMNS` that a file has. Of a
            list of messages, the first of a user is the question.
        tick: Called now and then with the number of rows done since.

    Raises:
        SourceError: If there are no files, one cannot be read, or none of its columns fits.
    """
    parts = _by_benchmark(search.items)
    report = Report(str(dataset))
    report.benchmarks = {name: Tally(len(items.names)) for name, items in parts.items()}
    searches = {name: replace(search, items=items) for name, items in parts.items()}
    for file in dataset_files(dataset):
        name = str(file.relative_to(dataset)) if file != dataset else file.name
        start = 0
        for texts in _batches(file, column):
            frame = pl.DataFrame({"row": range(start, start + len(texts)), "text": texts})
            start += len(texts)
            there = frame.filter(pl.col("text").str.strip_chars().str.len_bytes() > 0)
            report.rows += there.height
            report.unread += frame.height - there.height
            _search(name, there, search, searches, report)
            tick(frame.height)
    if not report.rows:
        raise SourceError(f"{dataset}: no questions in {report.unread:,} rows. Name the --column.")
    return report


def dataset_files(dataset: Path) -> Sequence[Path]:
    """List the files of a dataset, sorted by name.

    Raises:
        SourceError: If there are none.
    """
    if dataset.is_file():
        format_of(dataset.name)
        return [dataset]
    if not dataset.is_dir():
        raise SourceError(f"{dataset}: no such file or folder; expected a dataset. Check the path.")
    folder = dataset / "data" if (dataset / "data").is_dir() else dataset
    wanted = [suffix for suffix in SUFFIXES if suffix != ".json"]  # which is often a description
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and any(suffix in wanted for suffix in path.suffixes)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise SourceError(
            f"{folder}: no files of rows; expected some with the ending {', '.join(wanted)}. "
            "Name a file."
        )
    return files


def _by_benchmark(items: Items) -> dict[str, Items]:
    parts: dict[str, Items] = {}
    for name, text in zip(items.names, items.texts, strict=True):
        part = parts.setdefault(name.rsplit(":", 1)[0], Items([], []))
        part.names.append(name)
        part.texts.append(text)
    return parts


def _search(
    file: str,
    rows: pl.DataFrame,
    search: Search,
    searches: Mapping[str, Search],
    report: Report,
) -> None:
    """Search one batch: all benchmarks at once first, and each of them in the few rows found."""
    texts = rows["text"].unique(maintain_order=True)
    suspects = texts.gather(search.find(texts)["row"].unique(maintain_order=True))
    hits: dict[str, dict[str, list[tuple[str, float, str, str]]]] = {t: {} for t in suspects}
    for name, one in searches.items():
        for row, method, item, score, quote in one.find(suspects).iter_rows():
            found = (method, score, one.items.names[item], quote)
            hits[suspects[row]].setdefault(name, []).append(found)
    for row, text in rows.filter(pl.col("text").is_in(suspects.implode())).iter_rows():
        report.contaminated += 1
        for name, all_found in hits[text].items():
            start = quotation(text)
            report.benchmarks[name].add([Hit(file, row, *one, start) for one in all_found])


def _batches(file: Path, column: str | None) -> Iterator[pl.Series]:
    """Read the questions of a file; null where a row has none or cannot be read."""
    if format_of(file.name) == ".parquet":
        yield from _parquet_batches(file, column)
        return
    batch: list[str | None] = []
    chosen = column
    for record in read_records(file, [column] if column else COLUMNS):
        if isinstance(record, Broken):
            batch.append(None)
        else:
            chosen = chosen or _choose(file, list(record))
            if chosen not in record and not batch:
                _choose(file, list(record), chosen)
            batch.append(asked(record.get(chosen)))
        if len(batch) == BATCH:
            yield pl.Series(batch, dtype=pl.String)
            batch = []
    if batch:
        yield pl.Series(batch, dtype=pl.String)


def _parquet_batches(file: Path, column: str | None) -> Iterator[pl.Series]:
    frame = pl.scan_parquet(file)
    try:
        schema = frame.collect_schema()
        name = _choose(file, list(schema), column)
        question = _expression(file, name, schema[name])
        for batch in frame.select(question).collect_batches(chunk_size=BATCH, maintain_order=True):
            yield batch.to_series()
    except (OSError, pl.exceptions.PolarsError) as error:
        what = str(error).splitlines()[0]
        raise SourceError(f"{file}: cannot be read as Parquet ({what}). Check it.") from error


def _choose(file: Path, columns: Sequence[str], wanted: str | None = None) -> str:
    names = (wanted,) if wanted else COLUMNS
    found = next((name for name in names if name in columns), None)
    if found is None:
        raise SourceError(
            f"{file}: no column {' or '.join(names)}; its columns are {', '.join(columns)}. "
            "Name the right one with --column."
        )
    return found


def _expression(file: Path, name: str, dtype: pl.DataType) -> pl.Expr:
    """Take the question out of a column of texts, or of lists of messages."""
    if dtype == pl.String:
        return pl.col(name)
    inner = dtype.inner if isinstance(dtype, pl.List) else None
    fields = [f.name for f in inner.fields] if isinstance(inner, pl.Struct) else []
    role = next((r for r in ROLES if r in fields), None)
    text = next((t for t in TEXTS if t in fields), None)
    if role is None or text is None:
        raise SourceError(
            f"{file}: the column {name} is {dtype}; expected texts, or lists of messages with "
            "role and content, or from and value. Name another with --column."
        )
    message = pl.element().struct
    said = pl.element().filter(message.field(role).is_in(ASKERS)).struct.field(text)
    return pl.col(name).list.eval(said).list.first().cast(pl.String)
