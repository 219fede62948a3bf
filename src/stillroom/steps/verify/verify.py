"""`verify`: is an answer right? The verdict is a column, not a filter."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import Field, model_validator

from stillroom.models.chat import Request
from stillroom.models.structured import Inquiry, outcomes
from stillroom.rows import Kind, Schema, Shape
from stillroom.steps.asking import bound, purchase
from stillroom.steps.base import Calls, ModelSpec, Out, Runtime, Step, Tick, check_groups
from stillroom.steps.foretelling import estimate, estimate_at_most
from stillroom.steps.verify.stages import By, Judge, Stage, with_defaults
from stillroom.store.artifact import Delta
from stillroom.store.table import Table
from stillroom.verifiers import Task, key_of, verifier
from stillroom.verifiers.asked import said_for_good
from stillroom.verifiers.canaries import MOST_FIRST, Canaries
from stillroom.verifiers.cascade import Alone, Cascade, Sturdy
from stillroom.verifiers.cascade import Stage as Opened
from stillroom.verifiers.judge import JudgeVerifier, canary_inquiries
from stillroom.verifiers.number import NumberVerifier
from stillroom.verifiers.vote import MajorityStage


class Verify(Step):
    """Compare each answer with the question's reference.

    Five verdicts are kept apart: ``correct``, ``incorrect``, ``unparsed`` (no answer was found in
    it, or it could not be compared), ``no_reference`` and ``error`` (the verifier gave up). Only
    the first is correct, and only the second is wrong. Of an answer that was cut off only what it
    says for good is looked at: a box, a tag, or, of programs, closed blocks of code.

    A cascade, or in short a list such as ``verify: [math, judge]``, asks stage after stage: each
    looks at what those before it left undecided, and the first that decides counts. ``verifier``
    names it, and ``verdict_detail`` holds what the others said. Of undecided verdicts an error
    counts before ``unparsed``, and that before ``no_reference``.

    Attributes:
        by: ``math`` (expressions, by value), ``choice`` (a letter), ``letters`` (one or several) or
            ``exact`` (text in normal form) compare with the reference; ``code`` runs the question's
            ``tests`` in a sandbox.
        judge: A model compares with the reference.
        cascade: Several stages in a row, each at most once: the words of ``by``, ``number``,
            ``judge`` and ``majority``.
    """

    STEP: ClassVar[str] = "verify"
    VERSION: ClassVar[int] = 5
    DELTA: ClassVar[Delta] = "columns"
    TAKES: ClassVar[Kind | None] = "answers"
    COLUMNS: ClassVar[Schema] = {
        "verdict": pl.String(),
        "extracted": pl.String(),
        "rule": pl.String(),
        "verifier": pl.String(),
        "verdict_detail": pl.String(),
    }

    by: By | None = None
    judge: Judge | None = None
    cascade: tuple[Stage, ...] | None = Field(None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        return with_defaults(value)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [n for n in ("by", "judge", "cascade") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} given; expected one of by, judge, cascade"
            )
        words = [stage.word for stage in self.stages]
        twice = [word for word in words if words.count(word) > 1]
        if twice:
            raise ValueError(f"the cascade has {twice[0]} twice; expected each stage once")
        if words == ["majority"]:
            raise ValueError(
                "the cascade has the majority alone; expected a stage before it that compares with "
                "the reference. Use `label: majority` for votes without verdicts"
            )
        return self

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the verifier, and a list as a cascade."""
        if isinstance(value, list | tuple):
            return {"cascade": value}
        return {"judge": {}} if value == "judge" else {"by": value}

    @property
    def stages(self) -> Sequence[Stage]:
        """The stages: one, or those of the cascade."""
        return self.cascade or (Stage(by=self.by, judge=self.judge),)

    def identity(self) -> dict[str, Any]:
        """Return what is used, and how a judge is asked."""
        if self.judge:
            return {"judge": self.judge.identity()}
        if self.cascade:
            return {"cascade": [stage.identity() for stage in self.cascade]}
        return {"by": key_of(str(self.by))}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the judge's role."""
        if self.judge:
            return self.model_copy(update={"judge": self.judge.bind(models, "judge")})
        stages = [
            stage.model_copy(update={"judge": stage.judge.bind(models, "cascade.judge")})
            if stage.judge
            else stage
            for stage in self.cascade or ()
        ]
        return self.model_copy(update={"cascade": tuple(stages)}) if stages else self

    def reads(self, shape: Shape) -> Sequence[str]:
        """Read the visible answer, its end and what it is compared with; never the thinking."""
        names = (name for stage in self.stages for name in stage.reads())
        return list(dict.fromkeys(["finish_reason", *names]))

    def adds(self, shape: Shape) -> Schema:
        """Add the verdict, what was extracted and by which rule, and who decided."""
        return self.COLUMNS

    @property
    def _asked(self) -> Judge | None:
        return next((stage.judge for stage in self.stages if stage.judge), None)

    def run(self, inputs: Sequence[Table], out: Out, rt: Runtime) -> list[str]:
        """Verify shard after shard; all draws of a question lie in one.

        Returns:
            How many canaries were asked, if there is a judge.
        """
        (table,) = inputs
        columns = list(dict.fromkeys(["id", *self.reads(table.shape)]))
        todo = [index for index in range(len(table.shards)) if not out.has(index)]
        if any(stage.majority for stage in self.stages):
            check_groups(table)
        canaries = self._canaries(table)
        if todo:
            with self._open(canaries, rt) as cascade:
                for index in todo:
                    frame = table.frame(index, *columns)
                    out.write(index, self._verified(frame, cascade), rows_in=frame.height)
                    rt.tick(Tick(rows=frame.height))
        if self._asked is None or canaries is None:
            return []
        judge = self._asked.judge()
        known = list(canaries.of(_questions(table)))
        settled = outcomes(canary_inquiries(judge, known), rt.ledger())
        asked = [c for c, reply in zip(known, settled, strict=True) if reply.next is None]
        return canaries.notes(judge.model, asked)

    def _verified(self, frame: pl.DataFrame, cascade: Cascade) -> pl.DataFrame:
        names = [name for name in frame.columns if name not in ("id", "answer", "finish_reason")]
        runs = any(stage.by == "code" for stage in self.stages)
        tasks = [
            Task(said_for_good(answer, ended, code=runs), known.pop("reference", None), **known)
            for answer, ended, known in zip(
                frame["answer"], frame["finish_reason"], frame.select(names).to_dicts(), strict=True
            )
        ]
        verdicts = cascade.verify(tasks)
        columns = {
            "verdict": [v.outcome for v in verdicts],
            "extracted": [v.extracted for v in verdicts],
            "rule": [v.rule for v in verdicts],
            "verifier": [v.verifier for v in verdicts],
            "verdict_detail": [v.detail for v in verdicts],
        }
        return pl.DataFrame({"id": frame["id"], **columns}, schema_overrides=self.COLUMNS)

    @contextlib.contextmanager
    def _open(self, canaries: Canaries | None, rt: Runtime) -> Iterator[Cascade]:
        """Open every stage once for all shards."""
        with contextlib.ExitStack() as stack:
            opened: list[Opened] = []
            for stage in self.stages:
                if stage.judge:
                    assert canaries is not None
                    judge = _judge(stage.judge, canaries, rt)
                    opened.append(Alone("judge", judge, stage.judge.also_incorrect))
                    continue
                if near := stage.number:
                    numbers = NumberVerifier(within=near.within, relative=near.relative)
                    opened.append(Alone("number", Sturdy(numbers)))
                    continue
                vote = stage.majority
                rule = verifier(
                    vote.by if vote else stage.by or "math",
                    workers=rt.workers,
                    sandbox=rt.sandbox,
                    allow_unsandboxed=rt.allow_unsandboxed,
                )
                who = Sturdy(stack.enter_context(rule))
                if vote:
                    rules = (vote.by, vote.votes, vote.share, vote.as_reference)
                    opened.append(MajorityStage(who, *rules))
                else:
                    opened.append(Alone(stage.word, who))
            yield Cascade(opened)

    def _canaries(self, table: Table) -> Canaries | None:
        judge = self._asked
        return Canaries(_questions(table), judge.canaries) if judge else None

    def calls(self, inputs: Sequence[Table], rt: Runtime) -> Calls | None:
        """Count what the judge would be asked, canaries among it.

        In a cascade this is a bound: what earlier stages leave open is not known before.
        """
        (table,) = inputs
        asked, canaries = self._asked, self._canaries(table)
        if asked is None or canaries is None:
            return None
        judge = asked.judge()
        wanted, missing = set[bytes](), set[bytes]()

        def count(inquiries: Sequence[Inquiry[Any]]) -> None:
            for inquiry, reply in zip(inquiries, outcomes(inquiries, rt.ledger()), strict=True):
                key = inquiry.requests()[0].key
                wanted.add(key)
                if reply.next is not None:
                    missing.add(key)

        count(canary_inquiries(judge, canaries.opening))
        for frame in table.frames("question", "reference", "answer", "finish_reason"):
            tasks = [
                Task(answer=said_for_good(a, ended), reference=r, question=q)
                for q, r, a, ended in frame.iter_rows()
            ]
            prepared = [(task, judge.prepare(task)) for task in tasks]
            shown = [(t, p) for t, p in prepared if isinstance(p, Inquiry)]
            riding = canaries.riding((t.question, t.reference or "") for t, _ in shown)
            count([*canary_inquiries(judge, riding), *(p for _, p in shown)])
        if len(self.stages) > 1:
            return estimate_at_most(bound(asked.model), rt, len(missing))
        return estimate(bound(asked.model), rt, wanted=len(wanted), missing=len(missing))

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls | None:
        """Bound what the judge would be asked: every answer, each with a canary, all tries."""
        asked = self._asked
        if asked is None:
            return None
        return estimate_at_most(bound(asked.model), rt, (2 * rows + MOST_FIRST) * asked.tries)


def _judge(judge: Judge, canaries: Canaries, rt: Runtime) -> JudgeVerifier:
    def bought(requests: Iterator[Request]) -> object:
        return purchase(requests, bound(judge.model), rt, again=True)  # rows are counted by shard

    return JudgeVerifier(judge.judge(), ledger=rt.ledger(), purchase=bought, canaries=canaries)


def _questions(table: Table) -> Iterator[tuple[str, str | None]]:
    """Read the questions behind answers with their references; a repeat does no harm."""
    for frame in table.frames("question", "reference"):
        yield from frame.unique(maintain_order=True).iter_rows()
