"""Exams in tests: benchmarks of a few items, sat by a model that is a function."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stillroom.evaluate.grade import Exam, Grades, exam_of, grade
from stillroom.models.chat import Completion, Request
from stillroom.models.ledger import Ledger
from stillroom.run.runner import Runner
from stillroom.steps.base import ModelSpec, Runtime
from stillroom.store.store import Store
from tests.fakes import FakeModel, FakeModels

Says = Callable[[str, int], str]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON Lines, CSV or Parquet, by the ending."""
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sit(
    folder: Path,
    exam: Exam,
    says: Says,
    sources: Mapping[str, str] | None = None,
    judge: Callable[[Request], Completion] | None = None,
) -> Grades:
    """Let a model that answers by question and draw sit an exam."""

    def reply(request: Request) -> Completion:
        if request.model == "judge":
            assert judge is not None
            return judge(request)
        text = says(request.messages[-1].content, request.draw)
        return Completion("thought", text, "stop", 7, len(text))

    with Ledger(folder / "ledger") as ledger:
        models = FakeModels(FakeModel(reply))
        rt = Runtime(models, lambda: ledger, sources or {}, workers=1)  # type: ignore[arg-type]
        return grade(exam, "student", Runner(Store(folder / "store"), rt), "eval")


def sit_known(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], says: Says, **more: Any
) -> Grades:
    """Sit a benchmark of the registry on rows of one's own, in its publisher's columns."""
    judge = ModelSpec(name="judge", temperature=0) if "judge" in more else None
    exam = exam_of(name, more.pop("repeats", 1), judge)
    file = write(folder / f"{name}.{more.pop('ending', 'jsonl')}", rows)
    return sit(folder, exam, says, {name: str(file)}, **more)


def boxed(text: str) -> str:
    """Answer with a box."""
    return f"So it is \\boxed{{{text}}}."


def program(text: str) -> str:
    """Answer with a program."""
    return f"Here it is:\n```python\n{text}\n```\n"
