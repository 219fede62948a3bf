"""`consensus`: which draws of a question mean the same, in a model's eyes."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar, Self

import polars as pl
from pydantic import Field

from stillroom.models.ledger import Ledger
from stillroom.models.structured import TRIES, Form, Inquiry, ask, outcomes, schema_of
from stillroom.rows import Schema, content_id
from stillroom.steps.asking import bound, conversation, purchase, role, sampling
from stillroom.steps.base import Calls, ModelSpec, Runtime, Shardwise, Tick
from stillroom.steps.foretelling import estimate, estimate_at_most
from stillroom.steps.label.inquired import Reasons, check_some, prompt
from stillroom.steps.label.measure import Frames, Measure
from stillroom.store.table import Table


class Agreement(Form):
    """What the model fills in: the numbers of the answers in the largest group, from 1."""

    numbers: list[int]
    reasoning: str


class Consensus(Measure):
    """The largest set of a question's draws that mean the same, as a model sees it.

    The model reads the question and the ends of all visible answers, and names the largest group.
    Draws that say nothing, such as those that were cut off in their thinking, are not shown and in
    no group. The columns: ``in_consensus`` and ``consensus_votes``, null where no reply could be
    read, the reply names an answer that is not there, or no draw says anything. Where the model's
    temperature is left open, it is 1.0.

    Source: OpenThoughts, majority consensus by GPT-4o-mini at temperature 1.0, which reads the last
    1,000 characters of each response, or the whole solution of code. The wording is our own.

    Attributes:
        model: Role of the model in the recipe's ``models``.
        tail: Characters of each answer that are shown, from its end; null for all.
        tries: How often it is asked at most, when replies cannot be read.
    """

    ASKS: ClassVar[bool] = True
    GROUPS: ClassVar[bool] = True

    model: str | ModelSpec = "grader"
    tail: int | None = Field(1_000, ge=1)
    tries: int = Field(TRIES, ge=1, le=100)

    @classmethod
    def shorthand(cls, value: Any) -> Any:
        """Take a bare word as the model's role."""
        return {"model": value}

    def bind(self, models: Mapping[str, ModelSpec]) -> Self:
        """Replace the role by the model."""
        return self.model_copy(update={"model": role(self.model, models, "model")})

    def identity(self) -> dict[str, Any]:
        """Let the wording of the prompt, the form, and that blanks are left out enter the key."""
        wording = content_id(prompt("consensus"), schema_of(Agreement), "no blanks")
        return {"wording": wording}

    def reads(self) -> Sequence[str]:
        """Read the question and the visible answers."""
        return ("question_id", "question", "answer")

    def adds(self) -> Schema:
        """Add whether a draw is in the largest group, and the size of that group."""
        return {"in_consensus": pl.Boolean(), "consensus_votes": pl.Int32()}

    def _inquiries(self, frame: pl.DataFrame) -> Iterator[Inquiry[Agreement]]:
        spec = bound(self.model)
        drawn = sampling(spec, temperature=1.0)
        before, _, rest = prompt("consensus").partition("[[question]]")
        between, _, after = rest.partition("[[answers]]")
        grouped = frame.group_by("question_id", maintain_order=True)
        for _, draws in grouped:
            said = [draws["answer"][place] for place in _speaking(draws)]
            if not said:
                continue
            tails = [a if self.tail is None else a[-self.tail :] for a in said]
            answers = "\n\n".join(f"Answer {n}:\n{text}" for n, text in enumerate(tails, 1))
            text = f"{before}{draws['question'][0]}{between}{answers}{after}"
            yield Inquiry(spec.name, conversation(spec, text), drawn, Agreement, tries=self.tries)

    @contextlib.contextmanager
    def prepare(self, frames: Frames, rt: Runtime, tally: Counter[str]) -> Iterator[Shardwise]:
        """Ask once for each question, then read the replies shard by shard."""
        ledger = rt.ledger()
        rt.tick(Tick(of=sum(frame["question_id"].n_unique() for frame in frames())))
        rounds = count()

        def inquiries() -> Iterator[Inquiry[Agreement]]:
            return (inquiry for frame in frames() for inquiry in self._inquiries(frame))

        ask(
            inquiries,
            ledger,
            lambda requests: purchase(requests, bound(self.model), rt, again=next(rounds) > 0),
        )
        check_some(outcomes(inquiries(), ledger), bound(self.model))
        reasons = Reasons()
        yield lambda frame: self._read(frame, ledger, tally, reasons)

    def _read(
        self, frame: pl.DataFrame, ledger: Ledger, tally: Counter[str], reasons: Reasons
    ) -> pl.DataFrame:
        found: dict[str, tuple[set[int], str]] = {}
        groups = frame.group_by("question_id", maintain_order=True)
        known = outcomes(self._inquiries(frame), ledger)
        for (question,), draws in groups:
            speaking = _speaking(draws)
            if not speaking:
                found[str(question)] = (set(), "no draw says anything")
                continue
            outcome = next(known)
            numbers = set(outcome.value.numbers) if outcome.value else set()
            if numbers and numbers <= set(range(1, len(speaking) + 1)):
                found[str(question)] = ({speaking[n - 1] for n in numbers}, "")
            else:
                read = outcome.state == "read"
                why = "the reply names no answer that is there" if read else reasons.of(outcome)
                found[str(question)] = (set(), why)
        rows: list[tuple[bool | None, int | None]] = []
        place: Counter[str] = Counter()
        for question in frame["question_id"]:
            inside, why = found[question]
            tally.update([why] if why else [])
            rows.append((None, None) if why else (place[question] in inside, len(inside)))
            place[question] += 1
        columns = pl.DataFrame(rows, schema=dict(self.adds()), orient="row")
        return pl.concat([frame.select("id"), columns], how="horizontal")

    def calls(self, table: Table, rt: Runtime) -> Calls:
        """Count the questions, and those that are not settled yet."""
        wanted = missing = 0
        for frame in table.frames("id", *self.reads()):
            for outcome in outcomes(self._inquiries(frame), rt.ledger()):
                wanted += 1
                missing += outcome.next is not None
        return estimate(bound(self.model), rt, wanted=wanted, missing=missing)

    def calls_at_most(self, rows: int, rt: Runtime) -> Calls:
        """Bound the questions by the rows, every one of them tried to the last."""
        return estimate_at_most(bound(self.model), rt, rows * self.tries)


def _speaking(draws: pl.DataFrame) -> list[int]:
    """Return the places of the draws whose visible answer says something."""
    return draws["answer"].str.strip_chars().str.len_bytes().gt(0).arg_true().to_list()
