"""Options that several verbs share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from stillroom.models.spending import Limit, Purse

F = TypeVar("F", bound=Callable[..., Any])


def store_option(function: F) -> F:
    """Add ``--store``."""
    return click.option(
        "--store", "store_path", type=click.Path(path_type=Path), default=Path("store"),
        envvar="STILLROOM_STORE", show_default=True, help="Folder of results and paid answers.",
    )(function)  # fmt: skip


def runtime_options(function: F) -> F:
    """Add the options that say where and how steps run."""
    function = click.option(
        "--source", "sources", multiple=True, metavar="NAME=FILE",
        help="Read a named source or benchmark from this file. Repeatable.",
    )(function)  # fmt: skip
    function = click.option(
        "--models", "models_path", type=click.Path(path_type=Path), default=None,
        help="Where models are served (models.toml).",
    )(function)  # fmt: skip
    function = click.option(
        "--workers", type=click.IntRange(min=1), default=os.cpu_count() or 1,
        show_default="cores", help="Processes for work on the CPU.",
    )(function)  # fmt: skip
    return store_option(function)


def spending_options(function: F) -> F:
    """Add the options that say what a run may buy, and whether to ask again."""
    function = click.option(
        "--budget", metavar="AMOUNT", default=None,
        help="Stop before this run has spent more, such as 200usd or 5M-tokens.",
    )(function)  # fmt: skip
    return click.option(
        "--retry-failed", is_flag=True, help="Ask again for answers that failed for good before.",
    )(function)  # fmt: skip


def parse_budget(budget: str | None) -> Purse:
    """Read what a run may spend.

    Raises:
        click.BadParameter: If it is no amount.
    """
    try:
        return Purse(None if budget is None else Limit.parse(budget))
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--budget") from None


def sandbox_options(function: F) -> F:
    """Add the options that say where code from models runs."""
    function = click.option(
        "--allow-unsandboxed-code", "allow_unsandboxed", is_flag=True,
        help="Run code from models with your own rights where no sandbox works.",
    )(function)  # fmt: skip
    return click.option(
        "--sandbox", default="auto", show_default=True, metavar="NAME",
        help="Where code from models runs: auto, bubblewrap, landlock, docker[:IMAGE], "
        "podman[:IMAGE], or the URL of a service.",
    )(function)  # fmt: skip


def parse_sources(sources: tuple[str, ...]) -> dict[str, str]:
    """Read ``NAME=FILE`` pairs.

    Raises:
        click.BadParameter: If one has no ``=``, or two name the same source.
    """
    pairs: dict[str, str] = {}
    for source in sources:
        name, equals, path = source.partition("=")
        if not (name and equals and path):
            raise click.BadParameter(f"{source!r}; expected NAME=FILE.", param_hint="--source")
        if name in pairs:
            raise click.BadParameter(f"{name} is given twice.", param_hint="--source")
        pairs[name] = path
    return pairs
