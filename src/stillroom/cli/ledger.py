"""`ledger`: look after the answers that were paid for."""

from collections.abc import Mapping
from pathlib import Path

import click

from stillroom.cli.options import store_option
from stillroom.errors import StoreError
from stillroom.models.ledger import Ledger, Torn
from stillroom.models.ledger.accounts import Usage
from stillroom.store.store import Store

_SHOWN = 20


@click.group()
def ledger() -> None:
    """Look after the answers that were paid for: count, check, shrink, move."""


@ledger.command()
@store_option
def stats(store_path: Path) -> None:
    """Count completions and tokens by model, failures by reason, and bytes by journal."""
    with _opened(store_path) as opened:
        found = opened.stats()
    click.echo(f"{opened.path}: {found}")
    for name, usage in _students_as_one(found.by_model).items():
        click.echo(
            f"  {name}: {usage.completions:,} completions, {usage.prompt_tokens:,} prompt and "
            f"{usage.completion_tokens:,} completion tokens"
            + (f", {usage.uncounted:,} without counts" if usage.uncounted else "")
        )
    for title, counts in (("finished by", found.finish_reasons), ("failed with", found.failures)):
        if counts:
            click.echo(f"  {title}: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()))
    for name, size in found.journals.items():
        click.echo(f"  {size / 1e6:10,.1f} MB  {name}")


def _students_as_one(by_model: Mapping[str, Usage]) -> dict[str, Usage]:
    """Add up the students of studies, of which there may be hundreds."""
    students = [name for name in by_model if name.startswith("student/")]
    if len(students) < 2:
        return dict(by_model)
    rest = {name: usage for name, usage in by_model.items() if name not in students}
    whole = Usage(*map(sum, zip(*(by_model[name] for name in students), strict=True)))
    return {**rest, f"{len(students):,} students": whole}


@ledger.command()
@click.option("--forget", is_flag=True, help="Forget torn completions, so that they are bought "
              "again.")  # fmt: skip
@store_option
def verify(forget: bool, store_path: Path) -> None:
    """Read every completion, and name those that are torn; exit status 1 if there are any."""
    with _opened(store_path) as opened:
        torn: list[Torn] = []
        for found in opened.verify():
            torn.append(found)
            if len(torn) <= _SHOWN:
                click.echo(f"torn: {found.key.hex() if found.key else '-'} {found.problem}")
        if not torn:
            click.echo(f"{opened.stats()}: every byte as written")
            return
        click.echo(f"{len(torn):,} torn.")
        if not forget:
            raise SystemExit(1)
        dropped = opened.forget([found.key for found in torn if found.key])
        click.echo(f"{dropped:,} forgotten; the next run buys those that it needs.")


@ledger.command()
@click.argument("keys", nargs=-1, required=True)
@store_option
def forget(keys: tuple[str, ...], store_path: Path) -> None:
    """Forget completions by their KEYS, 32 hexadecimal digits each; they are bought anew."""
    try:
        wanted = [bytes.fromhex(key) for key in keys]
    except ValueError as error:
        raise click.BadParameter(f"{error}; expected 32 hexadecimal digits.") from None
    with _opened(store_path) as opened:
        click.echo(f"{opened.forget(wanted):,} forgotten.")


@ledger.command()
@store_option
def compact(store_path: Path) -> None:
    """Write this machine's journals anew: smaller, and without what was forgotten."""
    with _opened(store_path) as opened:
        done = opened.compact()
    torn = f"; {done.torn:,} were torn and are gone" if done.torn else ""
    click.echo(
        f"{done.completions:,} completions, {done.before / 1e6:,.1f} MB before, "
        f"{done.after / 1e6:,.1f} MB after{torn}."
    )


@ledger.command()
@click.argument("file", type=click.Path(path_type=Path))
@store_option
def export(file: Path, store_path: Path) -> None:
    """Write every completion into FILE, for `import` elsewhere."""
    with _opened(store_path) as opened:
        done = opened.export(file)
    click.echo(f"{done:,} completions in {file}, {file.stat().st_size / 1e6:,.1f} MB.")


@ledger.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@store_option
def import_(file: Path, store_path: Path) -> None:
    """Take over the completions of FILE: what `export` wrote, or an older `ledger.sqlite`."""
    _take_in(file, store_path)


@ledger.command()
@click.argument("other", type=click.Path(path_type=Path))
@store_option
def merge(other: Path, store_path: Path) -> None:
    """Take over the completions of OTHER: a store, or the ledger of one."""
    inside = Store(other).ledger_path
    _take_in(inside if inside.is_dir() else other, store_path)


def _take_in(other: Path, store_path: Path) -> None:
    store = Store(store_path)
    store.root.mkdir(parents=True, exist_ok=True)
    with Ledger(store.ledger_path) as opened:
        read, new = opened.take_in(other)
    click.echo(f"{read:,} completions read, {new:,} of them new in {store.ledger_path}.")


def _opened(store_path: Path) -> Ledger:
    path = Store(store_path).ledger_path
    if not path.exists():
        raise StoreError(f"{path}: no such ledger; expected one in a store. Name another --store.")
    return Ledger(path)
