"""One fixed input for each step, and the rows that it writes: golden rows are these, recorded."""

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from tests.fakes import FakeModel, FakeModels, echo
from tests.golden.items import ITEMS, made_of
from tests.judges import honest
from tests.kitchen import Kitchen

from stillroom.evaluate.items import Items
from stillroom.models.chat import Reply, Request
from stillroom.models.ledger import Ledger
from stillroom.recipe.form import STEPS
from stillroom.store.artifact import Artifact
from stillroom.verifiers import CHANGED, key_of

FOLDER = Path(__file__).parent

QUESTIONS = [
    {"question": "What is 2+2?", "reference": "4", "n": 1},
    {"question": "what  is 2+2?", "reference": None, "n": 2},
    {"question": "See the figure at https://example.org: (A) 1 (B) 2 (C) 3", "n": 3},
    {"question": "Wie groß ist ½ von x²?", "reference": "x^2/2", "n": None},
    {"question": "A train leaves at noon and goes sixty km per hour until three.", "n": 5},
    {"question": " ", "n": 6},
]
SOURCE = "- source: {file: questions.jsonl, columns: {n: number}}"
CASES = {
    "source": [SOURCE],
    "mix": [f"- mix: {{a: [{SOURCE[2:]}], b: [{{{SOURCE[2:]}, as: again}}]}}"],
    "label": [SOURCE, "- label: rules"],
    "keep": [SOURCE, "- keep: {where: {n: {min: 2}}}"],
    "take": [SOURCE, "- take: 2"],
    "upsample": [SOURCE, "- upsample: 14"],
    "dedup": [SOURCE, "- dedup: exact"],
    "dedup_indel": [SOURCE, "- dedup: {indel: {threshold: 75, text: raw}}"],
    "decontaminate": [SOURCE, "- decontaminate: {against: bench, ngram: 6}"],
    "answer": [SOURCE, "- answer: {draws: 2}"],
    "verify": [SOURCE, "- answer: {draws: 1}", "- verify: math"],
    "verify_judge": [SOURCE, "- answer: {draws: 1}", "- verify: {judge: teacher}"],
    "verify_cascade": [
        SOURCE,
        "- answer: {draws: 2}",
        "- verify: [math, {judge: teacher}, {majority: {votes: 2, as_reference: true}}]",
    ],
}


def reply(request: Request) -> Reply:
    """Judge where a form is asked for, and answer else."""
    return echo(request) if request.schema is None else honest(request)


ALL = (*CASES, *ITEMS)


def golden_file(step: str) -> Path:
    """Return where the golden rows of a case lie, under its step's present version.

    Keys speak of a verifier whose verdicts have changed, and so do the names of its rows.
    """
    text = "".join(CASES.get(step, ()))
    kinds = [key_of(kind).replace("/", "") for kind in CHANGED if kind in text]
    version = {**STEPS, Items.STEP: Items}[step.split("_")[0]].VERSION
    return FOLDER / ".".join([step, f"v{version}", *kinds, "json"])


def rows_of(step: str) -> list[dict[str, Any]]:
    """Run a step's case and return what it writes, rows lost on the way among them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if step in ITEMS:
            return _read(made_of(step, folder))
        lines = [json.dumps(q) + "\n" for q in QUESTIONS]
        (folder / "questions.jsonl").write_text("".join([*lines, "{torn\n"]))
        bench = {"question": "a train leaves at noon and goes sixty miles"}
        (folder / "bench.jsonl").write_text(json.dumps(bench) + "\n")
        files = {"questions": "questions", "again": "questions", "bench": "bench"}
        sources = {name: str(folder / f"{file}.jsonl") for name, file in files.items()}
        with Ledger(folder / "ledger") as ledger:
            kitchen = Kitchen(
                folder / "store", sources, FakeModels(FakeModel(reply)), lambda: ledger
            )
            chain = "".join(f"    {line}\n" for line in CASES[step])
            model = "models: {teacher: {name: some/model, max_tokens: 9}}"
            kitchen.run(f"name: golden\n{model}\ndomains:\n  math:\n{chain}")
            return _read(kitchen.built[-1].artifact)


def _read(artifact: Artifact) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in artifact.files():
        found += pl.read_parquet(artifact.path / file.name).to_dicts()
    return found
