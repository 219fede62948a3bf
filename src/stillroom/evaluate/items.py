"""`items`: the questions of a benchmark, as rows. Never in a recipe, so never trained on.

What would change a score silently stops the run: a row that cannot be read, a question that stands
there twice. What is left out on purpose is counted, with the reason.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from stillroom.benchmarks.registry import Only, Options
from stillroom.errors import SourceError
from stillroom.evaluate import ioi
from stillroom.evaluate.forms import COLUMNS, FORMS, Item, LeftOut
from stillroom.evaluate.options import Choice, ordered, worded
from stillroom.rows import Shape, content_id
from stillroom.steps.base import Runtime
from stillroom.steps.source.files import Broken, Record, read_records
from stillroom.steps.source.source import Source
from stillroom.text.answers import choice_letter
from stillroom.verifiers.choice import LETTERS

NOT_SAT = "not_sat"
"""Why rows that ``where`` leaves out are not there."""

_WITH_TESTS = ("livecodebench", "codeforces", "codeelo", "ioi")
_SHOWN = 60  # characters of an item in messages


class Items(Source):
    """Read the items of a benchmark; the fields are those of `source`, and these.

    Attributes:
        form: Reader of its rows; see `stillroom.evaluate.forms` and `stillroom.evaluate.ioi`.
        cases: Where the tests are, if another dataset has them.
        options: Where options stand.
        where: Which rows are items, by column.
        once: Whether an item that repeats another is left out; else it is refused, because it
            would count twice.
    """

    STEP: ClassVar[str] = "items"
    VERSION: ClassVar[int] = 2  # of its own: what a newer `source` reads otherwise is no news here
    HEAVY: ClassVar[int] = 1 << 26

    form: Literal["livecodebench", "codeforces", "codeelo", "ioi", "jeebench"] | None = None
    cases: Source | None = None
    options: Options | None = None
    where: Mapping[str, Only] = Field(default_factory=dict)
    once: bool = False

    @model_validator(mode="before")
    @classmethod
    def _tests_of_the_form(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("form") in _WITH_TESTS:
            return {**value, "tests": {"column": "tests", "kind": "json"}}
        return value

    @model_validator(mode="after")
    def _with_cases(self) -> Self:
        if (self.form == "ioi") != (self.cases is not None):
            raise ValueError("expected form: ioi and cases together")
        return self

    def identity(self) -> dict[str, Any]:
        """Leave out what is not used."""
        fields = super().identity()
        if self.cases:
            fields["cases"] = self.cases.identity()
        return {
            name: field
            for name, field in fields.items()
            if field or name not in ("form", "options", "where", "once", "cases")
        }

    def outside(self, rt: Runtime) -> str | None:
        """Digest what is read, the tests too."""
        if self.cases is None:
            return super().outside(rt)
        return content_id(super().outside(rt), self.cases.outside(rt))

    def notes(self, rt: Runtime) -> list[str]:
        """Say which commits were read, where none is pinned."""
        return [*super().notes(rt), *(self.cases.notes(rt) if self.cases else ())]

    def named(self) -> Sequence[str]:
        """Name the source, and that of the tests."""
        return (*super().named(), *(self.cases.named() if self.cases else ()))

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Allow benchmarks, which `source` refuses."""
        return Shape("questions", self.writes(shapes))

    def _wanted(self) -> list[str]:
        columns = ioi.COLUMNS if self.form == "ioi" else COLUMNS.get(self.form or "", ())
        return [*super()._wanted(), *columns, *self._named_columns()]

    def _required(self) -> list[Sequence[str]]:
        own: list[Sequence[str]] = [(name,) for name in self._named_columns()]
        # A reader says itself what a row lacks.
        return [self.question, *own] if self.form else [*super()._required(), *own]

    def _named_columns(self) -> list[str]:
        options = self.options
        named = [options.right, *options.wrong, options.listed] if options else []
        return [*self.where, *(name for name in named if name)]

    def _records(self, rt: Runtime) -> Iterator[Record | Broken]:
        sat = self._sat(super()._records(rt))
        records = self._once(self._tasks(list(sat), rt) if self.cases else sat)
        if self.options and self.options.right:
            return iter(self._shuffled(list(records), self.options))
        if self.options and self.options.listed:
            return self._listed(records, self.options.listed)
        return records

    def _sat(self, records: Iterable[Record | Broken]) -> Iterator[Record | Broken]:
        """Leave out what is not sat, and let the reader make items of the rest."""
        for number, record in enumerate(records):
            if isinstance(record, Broken):
                raise SourceError(
                    f"{self.name}: {record.place} cannot be read ({record.reason}); expected a "
                    "benchmark item. Repair the file: a score without it would be another."
                )
            if not all(only.fits(record.get(name)) for name, only in self.where.items()):
                yield Broken(NOT_SAT, b"", f"row {number}")
            elif self.form and self.form in FORMS:
                yield self._read(record, number, self.form)
            else:
                yield record

    def _read(self, record: Record, number: int, form: str) -> Record | Broken:
        if "question" in record and "question" not in COLUMNS[form]:
            record = {**record, COLUMNS[form][0]: record["question"]}
        try:
            item = FORMS[form](record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._no_item(error, number) from None
        return self._made(item, number)

    def _no_item(self, error: Exception, number: int) -> SourceError:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        return SourceError(
            f"{self.name}: row {number} is no {self.form} item: {what.splitlines()[0][:300]}. "
            "Check that it is the right file, and whole."
        )

    def _made(self, item: Item | LeftOut, number: int) -> Record | Broken:
        if isinstance(item, LeftOut):
            return Broken(item.reason, b"", f"row {number}")
        return {
            self.question[0]: item.question,
            self._reference_columns[0]: item.reference,
            **({"tests": item.tests.text()} if item.tests else {}),
        }

    def _tasks(self, records: Sequence[Record | Broken], rt: Runtime) -> Iterator[Record | Broken]:
        """Make tasks of subtasks; each stands at the place of its first subtask."""
        rows = [record for record in records if not isinstance(record, Broken)]
        number = -1
        try:
            items = ioi.read_tasks(rows, self._cases(ioi.tests_of(rows), rt))
            for number, record in enumerate(records):
                if isinstance(record, Broken):
                    yield record
                    continue
                item = next(items)
                if item is None:
                    yield Broken(NOT_SAT, b"", f"row {number}")
                else:
                    yield self._made(item, number)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._no_item(error, max(number, 0)) from None

    def _cases(self, wanted: set[tuple[str, str]], rt: Runtime) -> ioi.Cases:
        """Read the tests that are wanted."""
        assert self.cases
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for path in self.cases._paths(rt):
            for record in read_records(path, ioi.CASE_COLUMNS):
                if isinstance(record, Broken):
                    raise SourceError(
                        f"{self.cases.name}: {record.place} cannot be read ({record.reason}); "
                        "expected a test. Repair the file."
                    )
                year, task, name, given, expected = (record[n] for n in ioi.CASE_COLUMNS)
                if (f"{year} {task}", name) in wanted:
                    found[f"{year} {task}", name] = given, expected
        return found

    def _once(self, records: Iterable[Record | Broken]) -> Iterator[Record | Broken]:
        """Find items that repeat another."""
        first: dict[Any, int] = {}
        for number, record in enumerate(records):
            if not isinstance(record, Broken):
                asked = self._asked(record)
                before = first.setdefault(asked, number)
                if before != number and self.once:
                    yield Broken("repeats_an_item", b"", f"row {number}")
                    continue
                if before != number:
                    text = asked[0] if len(asked[0]) <= _SHOWN else f"{asked[0][:_SHOWN]}…"
                    raise SourceError(
                        f"{self.name}: rows {before} and {number} are the same item, {text!r}; "
                        "expected each once, because a repeated one counts twice. Remove one, or "
                        "set `once: true` in the benchmark's sitting to leave later ones out."
                    )
            yield record

    def _asked(self, record: Record) -> tuple[str, ...]:
        """Return what makes an item: its question, and its options whatever their order."""
        question = _first(record, self.question) or ""
        options: list[str] = []
        if self.options and self.options.right:
            options = [str(record.get(n)) for n in (self.options.right, *self.options.wrong)]
        elif self.options and self.options.listed:
            options = [str(option).strip() for option in record.get(self.options.listed) or ()]
        return (str(question).strip(), *sorted(options))

    def _shuffled(
        self, records: Sequence[Record | Broken], options: Options
    ) -> Iterator[Record | Broken]:
        places = [n for n, record in enumerate(records) if not isinstance(record, Broken)]
        choices = [self._choice(records[n], n, options) for n in places]
        letters = dict(zip(places, zip(choices, ordered(choices), strict=True), strict=True))
        for number, record in enumerate(records):
            if number not in letters:
                yield record
                continue
            choice, (texts, letter) = letters[number]
            yield {
                self.question[0]: worded(choice.question, texts),
                self._reference_columns[0]: letter,
            }

    def _choice(self, record: Record | Broken, number: int, options: Options) -> Choice:
        assert isinstance(record, Mapping)
        assert options.right
        names = (*self.question, options.right, *options.wrong)
        texts = {n: str(record[n]).strip() for n in names if record.get(n) is not None}
        question = next((texts[n] for n in self.question if n in texts), "")
        there = [texts.get(n, "") for n in (options.right, *options.wrong)]
        if not question or "" in there or len(set(there)) < len(there):
            raise SourceError(
                f"{self.name}: row {number} has not {len(there)} different options and a question; "
                "expected a text in each of its columns. Repair the file."
            )
        return Choice(question, there[0], tuple(there[1:]))

    def _listed(self, records: Iterable[Record | Broken], column: str) -> Iterator[Record | Broken]:
        for number, record in enumerate(records):
            if isinstance(record, Broken):
                yield record
                continue
            options = record.get(column)
            if not isinstance(options, list) or not 2 <= len(options) <= 10:
                raise SourceError(
                    f"{self.name}: row {number} has {options!r:.80} in {column!r}; expected a list "
                    "of 2 to 10 options. Repair the file."
                )
            texts = [str(option).strip() for option in options]
            letter = choice_letter(str(_first(record, self._reference_columns) or ""))
            if letter and letter not in LETTERS[: len(texts)]:
                raise SourceError(
                    f"{self.name}: row {number} has {len(texts)} options and the answer {letter}; "
                    "expected the letter of one of them. Repair the file."
                )
            question = _first(record, self.question) or ""
            yield {**record, self.question[0]: worded(str(question).strip(), texts)}


def _first(record: Record, names: Sequence[str]) -> object:
    return next((record[name] for name in names if record.get(name) is not None), None)
