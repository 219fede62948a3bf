"""What studies cost, and what sharing saved."""

from collections import Counter
from collections.abc import Sequence

from stillroom.run.runner import Built
from stillroom.study.reports.page import Block
from stillroom.study.result import Result, asked_by


def cost(results: Sequence[Result]) -> list[Block]:
    """Add up what was spent, each artifact once, and say what sharing saved.

    A completion that was found in the ledger is taken to be worth what those were that the same
    step of the recipe bought.
    """
    once: dict[str, Built] = {}
    grading: dict[str, float] = {}
    apart: dict[str, Counter[str]] = {}
    for result in results:
        for built in (built for steps in result.built.values() for built in steps):
            once[built.artifact.manifest.key] = built
            apart.setdefault(built.path, Counter()).update(_spent(built))
        for built in result.graded:
            grading[built.artifact.manifest.key] = _spent(built)["usd"]
    spent: dict[str, Counter[str]] = {}
    for built in once.values():
        spent.setdefault(built.path, Counter()).update(_spent(built))
    whole = sum(spent.values(), Counter[str]())
    alone = sum(apart.values(), Counter[str]())
    rows = []
    if alone["asked"]:
        rows.append(["completions bought", f"{whole['calls']:,}", f"{alone['asked']:,}"])
    units = (("completion_tokens", "completion tokens bought", 0), ("usd", "US dollars", 2))
    for name, words, digits in units:
        if whole[name]:
            found = alone["asked"] > whole["calls"]
            worth = sum(apart[path]["asked"] * _each(name, spent[path], whole) for path in apart)
            said = f"{'about ' if found else ''}{worth:,.{digits}f}"
            rows.append([words, f"{whole[name]:,.{digits}f}", said])
    if usd := sum(grading.values()):
        rows.append(["US dollars of grading, judges and references", f"{usd:,.2f}", ""])
    if alone["seconds"]:
        rows.append(["seconds of steps", *(f"{c['seconds']:,.0f}" for c in (whole, alone))])
    sat = [s for result in results for s in result.sat if s.student]
    different = {s.student: s for s in sat}
    training = sum(s.seconds for s in different.values())
    rows.append(["students trained", f"{len(different):,}", f"{len(sat):,}"])
    rows.append(["seconds of training", f"{training:,.0f}", ""])
    header = ["", "spent", "if no arm shared anything"]
    blocks = [Block(heading="Cost"), Block(table=(header, rows))]
    if sum(asked_by(built) for built in once.values()) > whole["calls"]:
        blocks.append(
            Block(
                text="Completions that were in the ledger already are not among what was spent: "
                "other arms or studies bought them, or a run that was stopped."
            )
        )
    return blocks


def _each(name: str, here: Counter[str], whole: Counter[str]) -> float:
    """Return what a completion of a step took: of those that it bought, or else of all."""
    bought = here if here["calls"] else whole
    return bought[name] / max(1, bought["calls"])


def _spent(built: Built) -> dict[str, float]:
    measured = built.artifact.manifest.measured
    calls = measured.get("calls") or 0
    return {
        "calls": calls,
        "asked": asked_by(built),
        "completion_tokens": measured.get("completion_tokens") or 0,
        "usd": measured.get("usd") or 0,
        "seconds": measured.get("seconds") or 0,
    }
