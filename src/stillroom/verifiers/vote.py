"""What most draws of a question say: the votes, and what they may decide."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stillroom.text.answers import extract_answer, extract_choice
from stillroom.verifiers.verdict import Outcome, Task, Verdict, Verifier

Group = tuple[tuple[str, ...], int]
"""Texts that are one answer, the most usual first, and their votes."""


def grouped(votes: Mapping[str, Counter[str]], judge: Verifier) -> dict[str, list[Group]]:
    """Put equal answers together, question by question.

    Answers are compared in an order that follows from the votes and the texts alone, so that the
    order of draws never matters. Each round compares what is left of every question with the most
    usual of its texts, all questions in one call.

    Args:
        votes: Question to text to votes.
        judge: Finds two answers equal.
    """
    left = {
        question: [
            text for text, _ in sorted(counted.items(), key=lambda vote: (-vote[1], vote[0]))
        ]
        for question, counted in votes.items()
    }
    groups: dict[str, list[Group]] = {question: [] for question in votes}
    while any(left.values()):
        pairs = [(q, text) for q, texts in left.items() for text in texts[1:]]
        tasks = [Task(rf"\boxed{{{text}}}", left[q][0]) for q, text in pairs]
        equal: dict[str, set[str]] = {}
        for (question, text), verdict in zip(pairs, judge.verify(tasks), strict=True):
            if verdict.outcome == "correct":
                equal.setdefault(question, set()).add(text)
        for question, texts in left.items():
            if texts:
                same = equal.get(question, set())
                group = (texts[0], *(text for text in texts[1:] if text in same))
                groups[question].append((group, sum(votes[question][text] for text in group)))
                left[question] = [text for text in texts[1:] if text not in same]
    return groups


def final_text(answer: str, by: str) -> str | None:
    """Return the final answer that votes: a letter where letters are compared."""
    found = extract_choice(answer) if by == "choice" else extract_answer(answer)
    return found.text if found else None


@dataclass(frozen=True)
class MajorityStage:
    """Let the majority of a question's draws decide what earlier stages left open.

    The majority is the final answer that more draws give than any other, equal ones put together;
    it needs ``votes`` draws and more than ``share`` of those that have a final answer. Then:

    - With a reference, a draw of the majority takes the verdict that earlier stages gave to the
      majority's other draws, if they gave one and the same. Agreement alone decides nothing.
    - Without a reference, nothing is decided, unless ``as_reference`` says that the majority
      stands in for it: then its draws are correct, and draws that differ from it by value are
      incorrect.

    Attributes:
        verifier: Finds answers equal.
        by: Its word.
        votes: Draws that a majority needs.
        share: Part of the draws with a final answer that it must exceed, 0 to 1.
        as_reference: Whether it stands in for a missing reference.
    """

    verifier: Verifier
    by: str
    votes: int
    share: float
    as_reference: bool
    word: str = "majority"

    @property
    def name(self) -> str:
        """Name and version, as verdicts carry them."""
        return f"majority/1 {self.verifier.name}"

    def look(self, tasks: Sequence[Task], verdicts: Sequence[Verdict | None]) -> dict[int, Verdict]:
        """Return a verdict for each task that is open, by its place."""
        texts = [final_text(task.answer, self.by) for task in tasks]
        counted: dict[str, Counter[str]] = {}
        for task, text in zip(tasks, texts, strict=True):
            votes = counted.setdefault(task.question_id, Counter())
            if text is not None:
                votes[text] += 1
        looked = [i for i, v in enumerate(verdicts) if v is None or v.open]
        wanted = {tasks[i].question_id for i in looked}
        groups = grouped({q: v for q, v in counted.items() if q in wanted}, self.verifier)
        winners = {q: self._winner(found) for q, found in groups.items()}
        decided: dict[str, set[str]] = {}
        for task, text, verdict in zip(tasks, texts, verdicts, strict=True):
            if verdict is not None and not verdict.open:
                winner = winners.get(task.question_id)
                if winner and text in winner[0]:
                    decided.setdefault(task.question_id, set()).add(verdict.outcome)
        differing = [i for i in looked if self._may_differ(tasks[i], texts[i], winners)]
        asked = [
            Task(rf"\boxed{{{texts[i]}}}", _text(winners[tasks[i].question_id])) for i in differing
        ]
        found = self.verifier.verify(asked)
        wrong = {i for i, v in zip(differing, found, strict=True) if v.outcome == "incorrect"}
        return {
            i: self._verdict(tasks[i], texts[i], winners, counted, decided, i in wrong)
            for i in looked
        }

    def _winner(self, groups: "Sequence[Group]") -> "Group | None":
        first, second, *_ = *sorted(groups, key=lambda group: -group[1]), ((), 0), ((), 0)
        enough = first[1] >= self.votes and first[1] > self.share * sum(n for _, n in groups)
        return first if enough and first[1] > second[1] else None

    def _may_differ(
        self, task: Task, text: str | None, winners: "Mapping[str, Group | None]"
    ) -> bool:
        winner = winners[task.question_id]
        open_to_it = self.as_reference and not has_reference(task)
        return bool(open_to_it and winner and text is not None and text not in winner[0])

    def _verdict(
        self,
        task: Task,
        text: str | None,
        winners: "Mapping[str, Group | None]",
        counted: Mapping[str, Counter[str]],
        decided: Mapping[str, set[str]],
        wrong: bool,
    ) -> Verdict:
        outcome: Outcome
        undecided: Outcome = "unparsed" if has_reference(task) else "no_reference"
        winner = winners[task.question_id]
        if winner is None:
            return Verdict(undecided, text, None, "the draws have no majority", self.name)
        agrees = text in winner[0]
        does = "agrees" if agrees else "does not agree"
        of = sum(counted[task.question_id].values())
        detail = f"{does} with the majority, {winner[1]} of {of} final answers"
        if has_reference(task):
            said = decided.get(task.question_id, set())
            if agrees and len(said) == 1:
                outcome = "correct" if "correct" in said else "incorrect"
                return Verdict(outcome, text, None, f"{detail}, found {outcome}", self.name)
        elif self.as_reference and (agrees or wrong):
            outcome = "correct" if agrees else "incorrect"
            return Verdict(outcome, text, None, detail, self.name)
        return Verdict(undecided, text, None, detail, self.name)


def _text(winner: "Group | None") -> str:
    assert winner is not None
    return winner[0][0]


def has_reference(task: Task) -> bool:
    """Tell whether there is a reference to compare with."""
    return bool(task.reference and task.reference.strip())
