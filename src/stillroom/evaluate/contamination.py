"""Benchmark items that training data ask, so that scores can be given with and without them.

They are known from a report of ``stillroom contamination --json``, or from what the `decontaminate`
steps of a recipe dropped. What those steps dropped was not trained on; yet an item whose copy stood
among the sources may have a relative there that no threshold found. A dropped question names one
item for each method, and a report all that it asks, so the report is the more complete.

Items are named by their place in the benchmark's file, so both must have read the same file.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from stillroom.errors import SourceError
from stillroom.evaluate.grade import Grades
from stillroom.store.artifact import Artifact
from stillroom.store.store import Store

RECORD = "stillroom.json"
"""What an exported dataset says of its making."""


@dataclass(frozen=True)
class Suspects:
    """Items that training data ask.

    Attributes:
        where: What says so.
        rows: Benchmark to the places of its items that are asked; a benchmark that was searched
            and is not asked has none.
        sizes: Benchmark to the items that were searched, where that is known.
    """

    where: str
    rows: Mapping[str, frozenset[int]]
    sizes: Mapping[str, int] = field(default_factory=dict)

    def clean(self, benchmark: str, grades: Grades) -> pl.DataFrame | None:
        """Return the attempts at items that nothing asks; None if nobody searched for them.

        Raises:
            SourceError: If another file of the benchmark was searched.
        """
        if benchmark not in self.rows:
            return None
        size = self.sizes.get(benchmark)
        if size is not None and size != grades.rows:
            raise SourceError(
                f"{self.where}: it searched {size:,} items of {benchmark}, but the file that is "
                f"sat has {grades.rows:,} rows; expected the same file. Search again with "
                f"--source {benchmark}=FILE."
            )
        return grades.table.filter(~pl.col("row").is_in(list(self.rows[benchmark])))


def read_suspects(path: Path, store: Store) -> Suspects:
    """Read a report, or what the recipe of an exported dataset found.

    Args:
        path: A file that ``stillroom contamination --json`` printed, or a dataset's folder.
        store: Where the steps of that dataset lie.

    Raises:
        SourceError: If it is neither, or the store has lost the steps.
    """
    if path.is_dir():
        return _of_dataset(path, store)
    try:
        report = json.loads(path.read_text("utf-8"))
        found = report["benchmarks"]
        rows = {name: frozenset(map(int, tally["asked"])) for name, tally in found.items()}
        sizes = {name: int(tally["items"]) for name, tally in found.items()}
    except FileNotFoundError:
        raise SourceError(f"{path}: no such report or dataset. Check the path.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise SourceError(
            f"{path}: no report on contamination ({what}); expected what `stillroom contamination "
            "DATASET --json` prints. Run it again."
        ) from None
    return Suspects(str(path), rows, sizes)


def suspects_of(artifacts: Iterable[Artifact], where: str) -> Suspects | None:
    """Gather what `decontaminate` steps found; None if there are none."""
    rows: dict[str, set[int]] = {}
    for artifact in artifacts:
        if artifact.manifest.step != "decontaminate":
            continue
        searched = artifact.manifest.fields["against"]
        for name in searched:
            rows.setdefault(name, set())
        # As `describe` writes them; a name may hold blanks and whatever else file names do.
        items = re.compile(rf"(?:^|; )({'|'.join(map(re.escape, searched))}):(\d+) “")
        for witness in artifact.scan_all().select("witness").collect()["witness"]:
            for name, place in items.findall(witness or ""):
                rows[name].add(int(place))
    if not rows:
        return None
    return Suspects(where, {name: frozenset(places) for name, places in rows.items()})


def _of_dataset(folder: Path, store: Store) -> Suspects:
    try:
        stages = json.loads((folder / RECORD).read_text("utf-8"))["stages"]
        keys = [stage["key"] for stage in stages if stage["step"] == "decontaminate"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{folder}: no {RECORD} that tells its steps ({error}); expected a dataset that "
            "Stillroom wrote. For others, give what `stillroom contamination --json` prints."
        ) from None
    artifacts = [store.find("decontaminate", key) for key in keys]
    there = [artifact for artifact in artifacts if artifact]
    if len(there) < len(keys):
        raise SourceError(
            f"{folder}: {len(keys) - len(there)} of its decontaminate steps are not in the store "
            f"{store.root}; expected all. Name the --store in which it was made."
        )
    found = suspects_of(there, str(folder))
    if found is None:
        raise SourceError(
            f"{folder}: its recipe does not decontaminate, so nothing is known. Run `stillroom "
            f"contamination {folder} --json > report.json`, and give that."
        )
    return found
