"""What a step is: fields that say what to compute, and a method that computes it.

Fields enter the step's key; where and how it runs arrives as `Runtime` and never does.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from stillroom.errors import StoreError
from stillroom.models.config import ModelsConfig
from stillroom.models.ledger import Ledger
from stillroom.models.spending import Purse
from stillroom.rows import ANSWER, DROP, QUESTION, Kind, Schema, Shape, is_plain
from stillroom.store.artifact import Delta, Manifest
from stillroom.store.table import Table

if TYPE_CHECKING:
    from stillroom.steps.foretelling import Lengths


class Misfit(ValueError):
    """A step that does not fit where it stands; the loader adds file, line and path."""


class Out(Protocol):
    """Where a step puts its shards."""

    def has(self, shard: int) -> bool:
        """Tell whether a shard was finished before."""
        ...

    def write(
        self,
        shard: int,
        data: pl.DataFrame | None,
        *,
        rows_in: int,
        lost: pl.DataFrame | None = None,
        parent: int | None = None,
    ) -> None:
        """Finish one shard."""
        ...

    def write_drops(self, drops: pl.DataFrame, rows_in: Sequence[int]) -> None:
        """Finish all shards at once, with drops that were found over the whole table.

        Args:
            drops: ``place``, a row's number in the table from 0, and the columns of
                `stillroom.rows.DROP`; in the order of places.
            rows_in: Rows that the step saw, shard by shard.
        """
        ...


@dataclass(frozen=True)
class Tick:
    """Progress of a running step, in numbers that add up, and what cannot wait for its end.

    Attributes:
        rows: Rows that are done.
        calls: Completions bought.
        reused: Completions found in the ledger.
        failed: Requests that failed for good.
        tokens: Completion tokens bought.
        prompt_tokens: Prompt tokens paid for.
        model: Who wrote the completions.
        usd: Money spent; None when the model's price is unknown. Where the server counts no tokens,
            by a guess at them.
        of: Rows in all, once known.
        warning: A sentence for the user, at once.
    """

    rows: int = 0
    calls: int = 0
    reused: int = 0
    failed: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    model: str | None = None
    usd: float | None = None
    of: int | None = None
    warning: str | None = None


@dataclass(frozen=True)
class Runtime:
    """Where and how steps run. Nothing in it may change what they compute.

    Attributes:
        models: Where models are served.
        ledger: Opens the ledger of paid completions.
        sources: Files that stand in for named sources (``--source NAME=FILE``).
        workers: Processes for work on the CPU.
        sandbox: Where code from models runs; see `stillroom.sandbox.open_sandbox`.
        allow_unsandboxed: Whether it may run with the user's own rights where no sandbox works.
        retry_failed: Whether to ask again for what models failed on before.
        replay: Whether only the ledger may answer.
        purse: What the run may spend, and what it has spent.
        pilot: Completions of a step to buy before the run stops; None to buy all.
        tick: Called as work gets done.
    """

    models: ModelsConfig
    ledger: Callable[[], Ledger]
    sources: Mapping[str, str] = field(default_factory=dict)
    workers: int = 2
    sandbox: str = "auto"
    allow_unsandboxed: bool = False
    retry_failed: bool = False
    replay: bool = False
    purse: Purse = field(default_factory=Purse)
    pilot: int | None = None
    tick: Callable[[Tick], None] = lambda tick: None


class ModelSpec(BaseModel):
    """A model in a role: its frozen name and how it samples.

    Attributes:
        name: Frozen name, such as ``Qwen/QwQ-32B``; where it is served is in the user's config.
        temperature: 0 (greedy) or above; None leaves it to the server.
        top_p: Nucleus share, above 0 and up to 1; None leaves it to the server.
        max_tokens: Completion tokens at most, thinking included; None leaves it to the server.
        system: System prompt; none by default, as in OpenThoughts.
        reasoning: Whether the model is known to think before it answers. When true and no
            thinking arrives, the run stops.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    system: str | None = None
    reasoning: bool | None = None


class Step(BaseModel, ABC):
    """One line of a recipe.

    Class attributes:
        STEP: The word that a recipe uses.
        VERSION: Raised whenever the same fields and input give other rows.
        DELTA: What the step writes.
        TAKES: Kind of rows that it needs; None for both.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True
    )

    STEP: ClassVar[str]
    VERSION: ClassVar[int] = 1
    DELTA: ClassVar[Delta]
    TAKES: ClassVar[Kind | None] = None

    as_: str | None = Field(
        None, alias="as", pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        description="A name for this step, so that a study or `stillroom show` can point at it.",
    )  # fmt: skip

    _stretch: str = PrivateAttr("")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping | Step) else cls.shorthand(value)

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Turn what stands after the step's word into fields, where it is not a mapping."""
        return value

    @property
    def label(self) -> str:
        """The step's name in its domain."""
        return self.as_ or self.STEP

    def on(self, stretch: str) -> Self:
        """Return this step as it stands on a stretch of a recipe.

        Args:
            stretch: The way from one step that brings rows together anew, `mix` or `upsample`, to
                the next; ``""`` for the last of a domain that repeats none.
        """
        placed = self.model_copy()
        placed._stretch = stretch
        return placed

    @property
    def drawn_on(self) -> dict[str, str]:
        """Return what tells draws of this stretch from equal ones of another; empty for the last.

        Rows that won a draw in a branch have small numbers in it, how small depends on the branch.
        A draw of the same purpose after the mix would prefer those of the branch that gave few.
        """
        return {"stretch": self._stretch} if self._stretch else {}

    def identity(self) -> dict[str, Any]:
        """Return the fields that enter the key."""
        return self.model_dump(mode="json", by_alias=True, exclude={"as_"})

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Return this step with the recipe's models in place of their roles.

        Raises:
            Misfit: If a role is not among the recipe's models.
        """
        return self

    def outside(self, rt: Runtime) -> str | None:
        """Digest the content that comes from outside the store, such as a source file."""
        return None

    def named(self) -> Sequence[str]:
        """Name what a local file can stand in for (``--source NAME=FILE``)."""
        return ()

    @abstractmethod
    def reads(self, shape: Shape) -> Sequence[str]:
        """Name the columns that are read from a table of this shape."""

    def adds(self, shape: Shape) -> Schema:
        """Name and type the columns that are written, ``id`` left out."""
        return {}

    def check(self, shapes: Sequence[Shape]) -> Shape:
        """Check that the step fits its input tables, and return the shape of what comes out.

        Raises:
            Misfit: If the kind of rows is wrong or a column is missing.
        """
        if len(shapes) != 1:
            raise Misfit(f"{self.STEP} has no rows to work on; expected a source before it")
        (shape,) = shapes
        if self.TAKES is not None and shape.kind != self.TAKES:
            side = {"answers": "after", "questions": "before"}[self.TAKES]
            raise Misfit(
                f"{self.STEP} works on {self.TAKES}, but here the rows are {shape.kind}; "
                f"expected it {side} `answer`. Move it"
            )
        for column in self.reads(shape):
            if column not in shape.columns:
                raise Misfit(
                    f"{self.STEP} reads the column {column!r}, which is not there; "
                    f"expected one of {', '.join(shape.columns)}"
                )
        adds = self.adds(shape)
        for column in adds:
            if column in (QUESTION if shape.kind == "questions" else {**QUESTION, **ANSWER}):
                raise Misfit(
                    f"{self.STEP} writes the column {column!r}, which every row has already; "
                    "expected another name"
                )
            if not is_plain(column):
                raise Misfit(
                    f"{self.STEP} writes a column called {column!r}; expected the name of one "
                    "column, such as a word"
                )
        return shape.plus(adds)

    def writes(self, shapes: Sequence[Shape]) -> Schema:
        """Name and type the columns of the delta, ``id`` first."""
        if self.DELTA == "drops":
            return DROP
        return {"id": pl.String(), **self.adds(shapes[0])}

    @abstractmethod
    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Compute all shards that ``out`` does not have yet.

        Returns:
            Notes for the manifest: what a reader of the dataset card should know.
        """

    def failed(self, manifest: Manifest) -> int:
        """Count what is missing from an artifact of this step because a model failed.

        Args:
            manifest: Of an artifact that this step made.
        """
        return int(manifest.measured.get("failed", 0))

    def at_most(self, rows: Sequence[int | None]) -> int | None:
        """Bound the rows after this step; None if nothing is known.

        Args:
            rows: For each input, its rows or a bound on them.
        """
        (before,) = rows
        return before

    def calls(self, inputs: Sequence[Table], rt: Runtime) -> "Calls | None":
        """Count the completions that a run would ask for; None if it asks no model."""
        return None

    def calls_at_most(self, rows: int, rt: Runtime) -> "Calls | None":
        """Bound the completions for so many input rows; None if it asks no model."""
        return None


@dataclass(frozen=True)
class Calls:
    """Completions that a step needs.

    Attributes:
        model: Frozen model name.
        wanted: Completions in all.
        missing: Those that the ledger lacks.
        tokens: Completion tokens to expect for the missing ones: by what this step's own draws
            took so far, or by what this model wrote so far, or else at most, by its
            ``max_tokens``. None if none of these is known.
        bound: Whether ``tokens`` and ``usd`` are upper bounds.
        prompt_tokens: Prompt tokens to expect, as the server counts them; None if unknown.
        usd: The price of both; None if it is unknown.
        sample: Completions that the expectation rests on.
        tokens_range: The 95% interval of ``tokens``; None if there is none.
        usd_range: The same of ``usd``.
        pilot: Of the wanted completions, how many must be known for an interval within a tenth;
            None where no number does.
        seconds: At the speed that models.toml states; None if it states none.
        unit: What is counted: ``calls`` for completions, ``vectors``, or ``texts`` to score.
        lengths: What the interval rests on; of estimates by one model's history it is one and the
            same, so that they are all too low or all too high.
        also: What is asked of a second model, such as an embedder before a judge.
    """

    model: str
    wanted: int
    missing: int
    tokens: int | None = None
    usd: float | None = None
    bound: bool = False
    prompt_tokens: int | None = None
    sample: int = 0
    tokens_range: tuple[int, int] | None = None
    usd_range: tuple[float, float] | None = None
    pilot: int | None = None
    seconds: float | None = None
    unit: str = "calls"
    lengths: "Lengths | None" = None
    also: "Calls | None" = None


Shardwise = Callable[[pl.DataFrame], pl.DataFrame]


class RowStep(Step):
    """A step that is a pure function of one shard; resume by shard comes free.

    It writes either `shard`, or `prepare` where all shards share something costly.
    """

    def shard(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Compute the delta of one shard.

        Args:
            frame: ``id`` and the columns of `reads`, in row order.

        Returns:
            For columns: ``id`` and the columns of `adds`, one row per input row. For drops: the
            columns of `stillroom.rows.DROP`.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def prepare(self, rt: Runtime) -> Iterator[Shardwise]:
        """Open what all shards share, and yield the function of one shard; see `shard`."""
        yield self.shard

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Compute shard after shard."""
        (table,) = inputs
        columns = dict.fromkeys(["id", *self.reads(table.shape)])
        todo = [index for index in range(len(table.shards)) if not out.has(index)]
        if not todo:
            return []
        with self.prepare(rt) as compute:
            for index in todo:
                frame = table.frame(index, *columns)
                out.write(index, compute(frame), rows_in=frame.height)
                rt.tick(Tick(rows=frame.height))
        return []


def write_drops(table: Table, drops: pl.DataFrame, out: Out, rt: Runtime) -> None:
    """Write drops that were found over a whole table; see `Out.write_drops`."""
    out.write_drops(drops, table.heights)
    rt.tick(Tick(rows=table.height))


def check_groups(table: Table) -> None:
    """Make sure that all draws of a question lie in one shard, as `answer` writes them.

    Raises:
        StoreError: If a question's draws lie in two.
    """
    seen: set[str] = set()
    for frame in table.frames("question_id"):
        here = set(frame["question_id"].unique())
        if straddling := seen & here:
            raise StoreError(
                f"{table.rows.path}: the draws of question {min(straddling)} lie in two shards; "
                "expected all in one, as `answer` writes them. Delete the directory and run again."
            )
        seen |= here
