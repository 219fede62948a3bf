"""`gc`, `doctor` and `schema`."""

import json
from pathlib import Path

import click

from stillroom.cli.options import store_option


@click.command()
@click.option("--yes", is_flag=True, help="Free it; without this, only say what would go.")
@store_option
def gc(yes: bool, store_path: Path) -> None:
    """Free artifacts that no last run of a recipe or study used, and workshops where nobody works.

    Says what it would free; frees it with --yes. The ledger of paid answers always stays, and so do
    finished students.
    """
    from stillroom.store.gc import find_garbage, free, size_of
    from stillroom.store.store import Store

    store = Store(store_path)
    garbage = find_garbage(store)
    for path in (*garbage.artifacts, *garbage.unfinished):
        click.echo(f"{size_of(path) / 1e6:10.1f} MB  {path}")
    total = f"{garbage.bytes / 1e6:.1f} MB in {len(garbage.artifacts)} artifacts and "
    total += f"{len(garbage.unfinished)} unfinished ones"
    if not yes:
        click.echo(f"{total} would be freed; --yes frees them.")
        return
    free(store, garbage)
    click.echo(f"{total} freed.")


@click.command()
@click.option("--models", "models_path", type=click.Path(path_type=Path), default=None,
              help="Where models are served (models.toml).")  # fmt: skip
@store_option
def doctor(models_path: Path | None, store_path: Path) -> None:
    """Check the machine, the extras, the models and the store, and say what to do."""
    from stillroom.run.doctor import examine

    failed = 0
    for finding in examine(store_path, models_path):
        mark = {"ok": "ok  ", "absent": "-   ", "failed": "FAIL"}[finding.state]
        click.echo(f"{mark} {finding.what}: {finding.found}")
        if finding.remedy:
            click.echo(f"     → {finding.remedy}")
        failed += finding.state == "failed"
    if failed:
        raise SystemExit(1)


@click.command()
def schema() -> None:
    """Print the JSON Schema of recipe files, for editors."""
    from stillroom.recipe.schema import recipe_schema

    click.echo(json.dumps(recipe_schema(), indent=2))
