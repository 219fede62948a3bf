"""What a verb works with: the store, the ledger and the models, opened and closed again."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from stillroom.benchmarks.registry import local_copies
from stillroom.cli.options import parse_sources
from stillroom.cli.weights import check_weights
from stillroom.errors import RecipeError, StoreError
from stillroom.models.config import load_config
from stillroom.models.ledger import Ledger
from stillroom.recipe.form import Recipe
from stillroom.steps.base import Runtime
from stillroom.store.store import Store


@contextlib.contextmanager
def open_runtime(
    store_path: Path,
    recipes: Sequence[Recipe],
    models_path: Path | None,
    sources: tuple[str, ...],
    workers: int,
    benchmarks: Sequence[str] = (),
    models: Sequence[str] | None = None,
) -> Iterator[tuple[Store, Runtime]]:
    """Open the store, the ledger and the models, and close them again.

    Args:
        store_path: The store.
        recipes: What will be run; ``sources`` may name their sources and benchmarks.
        models_path: Where models are served, or None for the usual places.
        sources: ``NAME=FILE``, each.
        workers: Processes for work on the CPU.
        benchmarks: Further names that ``sources`` may speak of.
        models: Frozen names that are asked beside those of the recipes. None where nothing is
            asked.

    Raises:
        ModelError: If a model that is asked is another one than before; see `check_weights`.
    """
    overrides = parse_sources(sources)
    named = [name for recipe in recipes for name in _source_names(recipe)]
    known = list(dict.fromkeys([*named, *benchmarks]))
    for name in overrides:
        if name not in known:
            raise RecipeError(
                f"--source {name}: there is no source or benchmark of this name here; "
                f"expected one of {', '.join(known)}."
            )
    overrides = local_copies(known) | overrides
    store = Store(store_path)
    with contextlib.ExitStack() as stack:
        opened: list[Ledger] = []

        def ledger() -> Ledger:
            if not opened:
                store.root.mkdir(parents=True, exist_ok=True)
                _refuse_first_form(store)
                opened.append(Ledger(store.ledger_path))
                stack.callback(opened[0].close)
            return opened[0]

        stack.enter_context(stop_on_terminate())
        config = load_config(models_path)
        if models is not None:
            roles = [spec.name for recipe in recipes for spec in recipe.models.values()]
            check_weights(store, config, [*roles, *models])
        yield store, Runtime(config, ledger, overrides, workers)


def _refuse_first_form(store: Store) -> None:
    """Do not begin an empty ledger beside a full one, which would buy everything again."""
    old = store.root / "ledger.sqlite"
    if old.exists() and not store.ledger_path.exists():
        raise StoreError(
            f"{old}: a ledger of the first form; expected the folder {store.ledger_path}. Run "
            f"`stillroom ledger import {old} --store {store.root}` once: nothing is lost."
        )


def _source_names(recipe: Recipe) -> list[str]:
    steps = [step for chain in recipe.domains.values() for step in chain]
    return list(dict.fromkeys(name for step in steps for name in step.named()))


@contextlib.contextmanager
def stop_on_terminate() -> Iterator[None]:
    """Let SIGTERM stop a run as Ctrl-C does, and both at once, whatever is waited for."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Polars asks for interrupted waits to be taken up again: Ctrl-C would wait for the next answer.
    signal.siginterrupt(signal.SIGINT, True)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
