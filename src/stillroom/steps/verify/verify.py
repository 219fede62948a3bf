"""`verify`: is an answer right? The verdict is a column, not a filter."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import polars as pl

from stillroom.rows import Kind, Schema, Shape
from stillroom.steps.base import RowStep, Runtime, Shardwise
from stillroom.store.artifact import Delta
from stillroom.verifiers import Task, verifier


class Verify(RowStep):
    """Compare each answer with the question's reference.

    Five verdicts are kept apart: ``correct``, ``incorrect``, ``unparsed`` (no answer was found in
    it, or it could not be read), ``no_reference`` and ``error`` (the verifier ran out of time or
    memory). Only the first is correct, and only the second is wrong.

    Attributes:
        by: ``math`` (expressions, by value), ``choice`` (letters) or ``exact`` (text in normal
            form) compare with the reference; ``code`` runs the question's ``tests`` in a
            sandbox.
    """

    STEP: ClassVar[str] = "verify"
    VERSION: ClassVar[int] = 2
    DELTA: ClassVar[Delta] = "columns"
    TAKES: ClassVar[Kind | None] = "answers"
    COLUMNS: ClassVar[Schema] = {
        "verdict": pl.String(),
        "extracted": pl.String(),
        "rule": pl.String(),
        "verifier": pl.String(),
        "verdict_detail": pl.String(),
    }

    by: Literal["math", "choice", "exact", "code"]

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the verifier."""
        return {"by": value}

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the visible answer and the reference or the tests; never the thinking."""
        return ("answer", "tests" if self.by == "code" else "reference")

    def adds(self, shape: Shape) -> Schema:
        """Add the verdict, what was extracted and by which rule, and who decided."""
        return self.COLUMNS

    @contextlib.contextmanager
    def prepare(self, rt: Runtime) -> Iterator[Shardwise]:
        """Start the verifier once for all shards."""
        with verifier(
            self.by,
            workers=rt.workers,
            sandbox=rt.sandbox,
            allow_unsandboxed=rt.allow_unsandboxed,
        ) as judge:

            def verify(frame: pl.DataFrame) -> pl.DataFrame:
                if self.by == "code":
                    pairs = frame.select("answer", "tests").iter_rows()
                    tasks = [Task(answer, None, tests=tests) for answer, tests in pairs]
                else:
                    pairs = frame.select("answer", "reference").iter_rows()
                    tasks = [Task(answer, reference) for answer, reference in pairs]
                verdicts = judge.verify(tasks)
                columns = {
                    "verdict": [v.outcome for v in verdicts],
                    "extracted": [v.extracted for v in verdicts],
                    "rule": [v.rule for v in verdicts],
                    "verifier": [v.verifier for v in verdicts],
                    "verdict_detail": [v.detail for v in verdicts],
                }
                return pl.DataFrame({"id": frame["id"], **columns}, schema_overrides=self.COLUMNS)

            yield verify
