"""What a ledger holds and what it took, summed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from stillroom.models.ledger.folder import Folder
from stillroom.models.ledger.index import chunks


class Usage(NamedTuple):
    """Completions and their tokens, summed.

    Attributes:
        completions: How many.
        prompt_tokens: As the servers counted them.
        completion_tokens: As the servers counted them, thinking included.
        uncounted: How many of the completions came without token counts.
    """

    completions: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int


class Counts(NamedTuple):
    """Tokens of one completion, as the server counted them."""

    prompt_tokens: int
    completion_tokens: int


class History(NamedTuple):
    """What the completions of one model took.

    Attributes:
        completions: How many were counted.
        prompt_tokens: In the mean.
        completion_tokens: In the mean.
        squares: Of the completion tokens, in the mean.
        cubes: Their third powers, in the mean.
    """

    completions: int
    prompt_tokens: float
    completion_tokens: float
    squares: float
    cubes: float


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """What a ledger holds.

    Attributes:
        total: Over all models.
        by_model: By frozen model name.
        finish_reasons: Completions by finish reason.
        failures: Requests whose last outcome is a failure, by reason.
        size_bytes: Of the journals and this machine's index on disk.
        journals: Bytes by journal.
    """

    total: Usage
    by_model: dict[str, Usage]
    finish_reasons: dict[str, int]
    failures: dict[str, int]
    size_bytes: int
    journals: dict[str, int]

    def __str__(self) -> str:
        tokens = self.total.prompt_tokens + self.total.completion_tokens
        return (
            f"{self.total.completions:,} completions, {tokens:,} tokens, "
            f"{sum(self.failures.values()):,} failures, {self.size_bytes / 1e6:,.1f} MB"
        )


def usage(folder: Folder, keys: Iterable[bytes]) -> Usage:
    """Sum the tokens of the completions of these keys; a key given twice counts twice."""
    sums = [0, 0, 0, 0]
    for chunk in chunks(keys):
        by_key = dict(counted(folder, chunk))
        for counts in (by_key[key] for key in chunk if key in by_key):
            sums[0] += 1
            sums[1] += counts.prompt_tokens if counts else 0
            sums[2] += counts.completion_tokens if counts else 0
            sums[3] += counts is None
    return Usage(*sums)


def counted(folder: Folder, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Counts | None]]:
    """Yield the keys that have completions, each with its tokens if the server counted them."""
    query = "SELECT key, prompt_tokens, completion_tokens FROM completion"
    for _, rows in folder.look_up(query, keys):
        for key, prompt, completion in rows:
            yield key, None if prompt is None else Counts(prompt, completion)


def history(folder: Folder, model: str) -> History | None:
    """Return what a model's counted completions took, or None if there are none."""
    with folder.index.reading() as db:
        n, *means = db.execute(
            "SELECT count(completion_tokens), avg(prompt_tokens), avg(completion_tokens),"
            " avg(1.0 * completion_tokens * completion_tokens),"
            " avg(1.0 * completion_tokens * completion_tokens * completion_tokens)"
            " FROM completion JOIN model ON id = model WHERE name = ?",
            (model,),
        ).fetchone()
    return History(n, *means) if n else None


def stats(folder: Folder) -> LedgerStats:
    """Count what the ledger holds."""
    folder.follow()
    with folder.index.reading() as db:
        by_model = {
            name: Usage(*sums)
            for name, *sums in db.execute(
                "SELECT name, count(*), coalesce(sum(prompt_tokens), 0),"
                " coalesce(sum(completion_tokens), 0), sum(prompt_tokens IS NULL)"
                " FROM completion JOIN model ON id = model GROUP BY name ORDER BY name"
            )
        }
        finish_reasons = dict(
            db.execute(
                "SELECT finish_reason, count(*) FROM completion GROUP BY 1 ORDER BY 1"
            ).fetchall()
        )
        failures = dict(
            db.execute(
                "SELECT reason, count(*) FROM failure WHERE reason <> '' GROUP BY 1 ORDER BY 1"
            ).fetchall()
        )
        journals = dict(db.execute("SELECT name, size FROM journal ORDER BY name").fetchall())
    sums = [sum(column) for column in zip((0, 0, 0, 0), *by_model.values(), strict=True)]
    path = folder.index.path
    beside = [path, path.with_name(path.name + "-wal")]
    size = sum(journals.values()) + sum(f.stat().st_size for f in beside if f.exists())
    return LedgerStats(Usage(*sums), by_model, finish_reasons, failures, size, journals)
