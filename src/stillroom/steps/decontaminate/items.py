"""The items of benchmarks: what questions are compared with."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stillroom.benchmarks.registry import benchmarks, sets
from stillroom.errors import SourceError
from stillroom.steps.base import Runtime
from stillroom.steps.source.files import Broken
from stillroom.steps.source.source import Source


@dataclass(frozen=True)
class Items:
    """Benchmark items, in order; both lists have the same length.

    Attributes:
        names: Benchmark and place in it, such as ``math500:17``; the first place is 0.
        texts: What the item asks.
    """

    names: list[str]
    texts: list[str]


def read_items(against: Iterable[Source], rt: Runtime) -> Items:
    """Read the items of benchmarks.

    Args:
        against: Where the items are, each source under the benchmark's name.
        rt: Says which local files stand in.

    Raises:
        SourceError: If one cannot be read, or holds an item that cannot be: contamination by it
            would go unseen.
    """
    names: list[str] = []
    texts: list[str] = []
    for benchmark in against:
        check_there(benchmark, rt)
        before = len(names)
        for item in benchmark.questions(rt):
            if isinstance(item, Broken) or not item[1].strip():
                place = item.place if isinstance(item, Broken) else f"item {item[0]}"
                raise SourceError(
                    f"{benchmark.name}: {place} cannot be read or is empty; expected a "
                    "benchmark item. Repair the file: contamination by it would go unseen."
                )
            names.append(f"{benchmark.name}:{item[0]}")
            texts.append(item[1])
        if len(names) == before:
            raise SourceError(f"{benchmark.name}: no items. Check that it is the right file.")
    return Items(names, texts)


def check_there(benchmark: Source, rt: Runtime) -> None:
    """Tell a misspelt benchmark from a missing file.

    Raises:
        SourceError: If it is neither a benchmark's name nor a file.
    """
    path = benchmark.file
    if path is None or benchmark.name in rt.sources or "/" in path or Path(path).exists():
        return
    known = [*benchmarks(), *sets()]
    near = difflib.get_close_matches(path, known, n=1)
    if near or not Path(path).suffix:
        hint = f"Did you mean {near[0]}?" if near else f"Known ones are {', '.join(known)}."
        raise SourceError(f"{path}: no such file, and no benchmark of this name. {hint}")
