"""`label`: measure something and keep it as columns."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import model_validator

from stillroom.rows import Schema, Shape
from stillroom.steps.base import (
    Calls,
    Misfit,
    ModelSpec,
    Out,
    Runtime,
    Step,
    Tick,
    check_groups,
)
from stillroom.steps.label.askllm import AskLLM
from stillroom.steps.label.classifier import Classifier
from stillroom.steps.label.consensus import Consensus
from stillroom.steps.label.difficulty import Difficulty
from stillroom.steps.label.embedding import Embedding
from stillroom.steps.label.majority import Majority, Repair
from stillroom.steps.label.measure import Measure
from stillroom.steps.label.pair import Pair
from stillroom.steps.label.pass_rate import PassRate
from stillroom.steps.label.perplexity import Perplexity
from stillroom.steps.label.plain import Length, Rules
from stillroom.steps.label.response import Format, Language, Paragraphs, Repetition
from stillroom.steps.label.response_length import ResponseLength
from stillroom.steps.label.rubric import Rubric
from stillroom.steps.label.solution import Solution
from stillroom.steps.label.solve_rate import SolveRate
from stillroom.steps.label.tokens import Tokens
from stillroom.store.artifact import Delta
from stillroom.store.table import Table


class Label(Step):
    """Measure something and keep it as columns. Nothing is dropped; `keep` does that.

    Exactly one measure is given. A value that cannot be found is null, never zero, and the notes
    count such rows by reason.

    Attributes:
        length: How long a text is.
        rules: What plain rules see in the question.
        difficulty: How hard a model thinks the question is.
        response_length: How long a model's answer to the question is.
        askllm: How good a model thinks the question is for training.
        embedding: How much nearer the text is to good examples than to bad ones.
        format: How an answer is built.
        language: In which script and language an answer, or a question, is written.
        paragraphs: How long the longest paragraph of an answer is.
        repetition: How much an answer repeats itself.
        solution: Whether a model thinks that an answer solves its question.
        rubric: How good a model finds an answer, by criteria that the recipe names.
        pass_rate: The share of a question's draws that are correct.
        majority: The final answer that most draws of a question give.
        consensus: Which draws of a question mean the same, in a model's eyes.
        repair: What the reference should say, where all draws agree on another answer.
        pair: Which two draws of a question make a preference.
        classifier: How probably a classifier takes the text for a good example.
        solve_rate: How often a model answers the question correctly.
        tokens: How long the text is to a model.
        perplexity: How much the text surprises a model.
    """

    STEP: ClassVar[str] = "label"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "columns"

    length: Length | None = None
    rules: Rules | None = None
    difficulty: Difficulty | None = None
    response_length: ResponseLength | None = None
    askllm: AskLLM | None = None
    embedding: Embedding | None = None
    format: Format | None = None
    language: Language | None = None
    paragraphs: Paragraphs | None = None
    repetition: Repetition | None = None
    solution: Solution | None = None
    rubric: Rubric | None = None
    pass_rate: PassRate | None = None
    majority: Majority | None = None
    consensus: Consensus | None = None
    repair: Repair | None = None
    pair: Pair | None = None
    classifier: Classifier | None = None
    solve_rate: SolveRate | None = None
    tokens: Tokens | None = None
    perplexity: Perplexity | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        if isinstance(value, Mapping):  # `rules:` and `length:` with nothing behind them
            return {k: {} if v is None and k in cls.measures() else v for k, v in value.items()}
        return value

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        given = [name for name in self.measures() if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} given; expected one of "
                f"{', '.join(self.measures())}"
            )
        return self

    @classmethod
    def measures(cls) -> list[str]:
        """Name the measures that there are."""
        return [name for name in cls.model_fields if name != "as_"]

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as a measure with its defaults."""
        return {value: {}} if isinstance(value, str) else value

    @property
    def word(self) -> str:
        """The measure's word."""
        return next(name for name in self.measures() if getattr(self, name) is not None)

    @property
    def measure(self) -> Measure:
        """The measure that was given."""
        measure: Measure = getattr(self, self.word)
        return measure

    def identity(self) -> dict[str, Any]:
        """Return the measure's fields, and what it adds to them."""
        fields = self.measure.model_dump(mode="json", by_alias=True)
        return {self.word: {**fields, **self.measure.identity()}}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Bind the measure's model."""
        try:
            return self.model_copy(update={self.word: self.measure.bind(models)})
        except Misfit as error:
            raise Misfit(f"label.{self.word}.{error}") from None

    def outside(self, rt: Runtime) -> str | None:
        """Digest what the measure reads from outside the store."""
        return self.measure.outside(rt)

    def named(self) -> Sequence[str]:
        """Name the measure's examples."""
        return self.measure.named()

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read what is measured."""
        return self.measure.reads()

    def adds(self, shape: Shape) -> Schema:
        """Add the measure's columns."""
        return self.measure.adds()

    def calls(self, inputs: Sequence[Table], rt: Runtime) -> Calls | None:
        """Count what the measure would ask for."""
        return self.measure.calls(inputs[0], rt)

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls | None:
        """Bound what the measure would ask for."""
        return self.measure.calls_at_most(rows, rt)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Prepare once, then measure shard after shard."""
        (table,) = inputs
        columns = dict.fromkeys(["id", *self.measure.reads()])
        shards = range(len(table.shards))
        todo = [index for index in shards if not out.has(index)]
        tally: Counter[str] = Counter()

        def frames() -> Iterator[pl.DataFrame]:
            return (table.frame(index, *columns) for index in todo)

        if self.measure.GROUPS:
            check_groups(table)
        if not todo and not self.measure.ASKS:
            return self.measure.notes(table)
        with self.measure.prepare(frames, rt, tally) as compute:
            # Replies are read once more for shards that an earlier run finished: the notes are
            # about all rows.
            for index in shards if self.measure.ASKS else todo:
                frame = table.frame(index, *columns)
                data = compute(frame)
                if index in todo:
                    out.write(index, data, rows_in=frame.height)
                if not self.measure.ASKS:
                    rt.tick(Tick(rows=frame.height))
        unknown = [
            f"{n:,} of {table.height:,} rows have no value in {next(iter(self.measure.adds()))}: "
            f"{reason}."
            for reason, n in sorted(tally.items())
            if n
        ]
        return unknown + self.measure.notes(table)
