"""`dedup`: one row of those that ask the same."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import polars as pl
from pydantic import model_validator

from stillroom.rows import Kind, Shape, dropped
from stillroom.steps.base import Calls, Misfit, ModelSpec, Out, Runtime, Step, Tick, write_drops
from stillroom.steps.dedup.cosine import Cosine
from stillroom.steps.dedup.exact import Exact
from stillroom.steps.dedup.indel import Indel
from stillroom.steps.dedup.method import Method, Ranked
from stillroom.steps.dedup.minhash import MinHash
from stillroom.store.artifact import Delta
from stillroom.store.table import Table
from stillroom.text.normal import normal_form_expr

Criterion = Literal["verified", "reference", "longer", "first"]


class Dedup(Step):
    """Drop questions that repeat another one.

    Exactly one method is given; it decides which questions are the same. Of two that are, the one
    that ``prefer`` puts first survives. Every dropped row names the row that it repeats as its
    witness, and how alike they are as its score.

    Attributes:
        exact: The same normal form.
        indel: The same up to few edits.
        minhash: Probably most of the words in common.
        cosine: The same meaning, as far as an embedder can tell.
        prefer: What makes a row survive, the most important first. ``verified``: its boolean column
            ``verified`` is true, where the rows have such a column. ``reference``: it has a
            reference. ``longer``: its normal form has more characters. ``first``: it stands
            earlier; this breaks the ties in any case.
    """

    STEP: ClassVar[str] = "dedup"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "drops"
    TAKES: ClassVar[Kind | None] = "questions"
    METHODS: ClassVar[Mapping[str, type[Method]]] = {
        "exact": Exact,
        "indel": Indel,
        "minhash": MinHash,
        "cosine": Cosine,
    }

    exact: Exact | None = None
    indel: Indel | None = None
    minhash: MinHash | None = None
    cosine: Cosine | None = None
    prefer: tuple[Criterion, ...] = ("verified", "reference", "longer", "first")

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as a method with its defaults."""
        return {value: None} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _short_methods(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        methods = {k: v for k, v in value.items() if k in cls.METHODS}
        return {**value, **{k: cls.METHODS[k].shorthand(v) for k, v in methods.items()}}

    @model_validator(mode="after")
    def _one_method(self) -> Self:
        given = [name for name in self.METHODS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'no method'} given; expected one of "
                f"{', '.join(self.METHODS)}"
            )
        twice = [c for c in self.prefer if self.prefer.count(c) > 1]
        if twice:
            raise ValueError(f"prefer names {twice[0]} twice; expected each criterion once")
        return self

    def identity(self) -> dict[str, Any]:
        """Return the method that was given, and the preference."""
        return {k: v for k, v in super().identity().items() if v is not None}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Bind the method's model, if it has one."""
        (name,) = (name for name in self.METHODS if getattr(self, name) is not None)
        try:
            return self.model_copy(update={name: self.method.bind(models)})
        except Misfit as error:
            raise Misfit(f"dedup.{error}") from None

    @property
    def method(self) -> Method:
        """The method that was given."""
        methods: list[Method | None] = [getattr(self, name) for name in self.METHODS]
        return next(method for method in methods if method is not None)

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the question, and what the survivor is chosen by."""
        return tuple(dict.fromkeys(["question", *self._judged(shape)]))

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Check that ``verified`` says yes or no."""
        shape = super().check(shapes)
        verified = shape.columns.get("verified", pl.Boolean())
        if "verified" in self.prefer and verified not in (pl.Boolean(), pl.Unknown()):
            raise Misfit(
                f"dedup prefers verified rows, but the column 'verified' is {verified}; expected "
                "booleans. Rename the column, or write a prefer without verified"
            )
        return shape

    def calls(self, inputs: Sequence[Table], rt: Runtime) -> Calls | None:
        """Count what the method would ask of a model."""
        return self.method.calls(inputs[0], rt)

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls | None:
        """Bound what the method would ask of a model."""
        return self.method.calls_at_most(rows)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Rank the rows, find those that repeat a better one, and drop them."""
        (table,) = inputs
        if not table.shards:
            return []
        worse = (self._worse(c).alias(c) for c in self._criteria(table.shape))
        judged = table.scan("id", *self._judged(table.shape)).select("id", *worse)
        rows = judged.collect(engine="streaming").with_row_index("place")
        order = rows.sort(*rows.columns[2:], "place").select("place", "id")
        rank = order["place"].arg_sort()
        found = self.method.find(Ranked(table, rank), rt)
        ids = order["id"]
        drops = dropped(
            ids.gather(found["row"]),
            self.method.REASON,
            score=found["score"],
            witness=ids.gather(found["witness"]),
            place=order["place"].gather(found["row"]),
        ).sort("place")
        write_drops(table, drops, out, replace(rt, tick=_quiet) if self.method.TICKS else rt)
        return []

    def _criteria(self, shape: Shape) -> list[Criterion]:
        """Return what the order of the rows depends on; all that follows `first` has no say."""
        criteria = itertools.takewhile(lambda c: c != "first", self.prefer)
        # Equal normal forms are equally long.
        idle = {"longer"} if self.exact is not None else set()
        return [c for c in criteria if c not in idle and (c != "verified" or c in shape.columns)]

    def _judged(self, shape: Shape) -> list[str]:
        """Name the columns that the order of the rows depends on."""
        return ["question" if c == "longer" else c for c in self._criteria(shape)]

    def _worse(self, criterion: Criterion) -> pl.Expr:
        """Return a value that is lower for the better row."""
        match criterion:
            case "verified":
                return ~pl.col("verified").fill_null(False)
            case "reference":
                return pl.col("reference").is_null()
            case "longer":
                return -normal_form_expr("question").str.len_chars().cast(pl.Int64)
            case "first":
                raise AssertionError("rows stand in order")


def _quiet(tick: Tick) -> None:
    """Tell nobody."""
