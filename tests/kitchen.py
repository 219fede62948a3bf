"""Running recipes in tests: a store, a runtime without models, and a recipe from text."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from stillroom.models.chat import Completion, Request
from stillroom.models.config import load_config
from stillroom.models.ledger import Ledger
from stillroom.recipe.load import read_recipe
from stillroom.recipe.pipeline import walk
from stillroom.run.planner import Planned, Planner
from stillroom.run.runner import Built, Runner, Watcher
from stillroom.steps.base import Runtime, Step
from stillroom.store.artifact import Artifact
from stillroom.store.store import Store
from stillroom.store.table import Table
from tests.fakes import FakeModel, FakeModels


@dataclass
class Kitchen:
    """A store in a folder, and what was built in it."""

    root: Path
    sources: Mapping[str, str] = field(default_factory=dict)
    models: Any = None
    ledger: Callable[[], Ledger] | None = None
    built: Sequence[Built] = ()
    watcher: Watcher = field(default_factory=Watcher)

    @property
    def store(self) -> Store:
        return Store(self.root)

    @property
    def runtime(self) -> Runtime:
        def no_ledger() -> Ledger:
            raise AssertionError("this recipe asks no model")

        models = self.models or load_config()
        return Runtime(models, self.ledger or no_ledger, self.sources, workers=1)

    def run(self, text: str) -> dict[str, Table]:
        """Run a recipe; return each domain's table."""
        runner = Runner(self.store, self.runtime, self.watcher)
        try:
            ends = walk(read_recipe(text).bound(), runner)
        finally:
            self.built = runner.built
        return {domain: at.table for domain, at in ends.items()}

    def chain(self, steps: str, domain: str = "math") -> Table:
        """Run a recipe of one domain, given its steps as YAML lines."""
        lines = "\n".join("    " + line for line in steps.strip("\n").splitlines())
        return self.run(f"name: test\ndomains:\n  {domain}:\n{lines}\n")[domain]

    def step(self, path: str, step: Step) -> Artifact:
        """Run one step that needs no rows."""
        runner = Runner(self.store, self.runtime, self.watcher)
        runner(path, step, [])
        self.built = runner.built
        return self.built[-1].artifact

    def plan(self, text: str) -> list[Planned]:
        """Plan a recipe against what was built last."""
        before = {b.path: b.artifact.manifest for b in self.built}
        planner = Planner(self.store, self.runtime, before)
        walk(read_recipe(text).bound(), planner)
        return planner.planned

    def fresh(self) -> list[str]:
        """Paths that the last run built and did not find."""
        return [b.path for b in self.built if not b.cached]


def rows(table: Table, *columns: str) -> list[dict[str, Any]]:
    """Read a table as dictionaries."""
    return list(table.scan(*columns).collect().iter_rows(named=True))


def drops(built: Built) -> pl.DataFrame:
    """Read what a step dropped."""
    return built.artifact.scan_all().collect()


MODELS = "name: test\nmodels: {teacher: {name: t}, grader: {name: g}}\ndomains:\n  math:\n"


def cook(
    tmp_path: Path,
    steps: Sequence[str],
    texts: Sequence[Any],
    *,
    questions: int = 1,
    reference: str | None = "4",
    judge: Callable[[Request], Completion] | None = None,
    source: str | None = None,
) -> tuple[Table, Kitchen]:
    """Answer each question with the texts, one per draw, and run the steps behind."""
    if source is None:
        file = tmp_path / "q.jsonl"
        asked = [{"question": f"Question {i}?", "reference": reference} for i in range(questions)]
        file.write_text("".join(json.dumps(question) + "\n" for question in asked))
        source = f"{{file: {file}}}"

    def reply(request: Request) -> Completion:
        if request.model == "g":
            assert judge is not None
            return judge(request)
        text = texts[request.draw]
        reasoning, finish = None, "stop"
        if isinstance(text, tuple):
            reasoning, text, *rest = text
            finish = rest[0] if rest else "stop"
        return Completion(reasoning, text, finish, 1, 1)

    with Ledger(tmp_path / "ledger") as ledger:
        kitchen = Kitchen(tmp_path / "store", {}, FakeModels(FakeModel(reply)), lambda: ledger)
        chain = [f"source: {source}", f"answer: {{draws: {len(texts)}}}", *steps]
        table = kitchen.run(MODELS + "".join(f"    - {step}\n" for step in chain))["math"]
        return table, kitchen
