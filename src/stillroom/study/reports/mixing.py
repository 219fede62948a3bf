"""The report of a mixing study: what the regression is worth, what it proposes, what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stillroom.study.mixing.run import MIXTURE, PROPOSED, Mixed
from stillroom.study.reports.cost import cost
from stillroom.study.reports.forest import Line, forest_svg
from stillroom.study.reports.page import Block
from stillroom.study.reports.scatter import scatter_svg
from stillroom.study.reports.study import oddities, write_report
from stillroom.study.reports.verdict import points, sentence
from stillroom.study.statistics.comparing import differences
from stillroom.study.statistics.outcomes import Outcomes

UNITS = {"accuracy": "points", "likelihood": "nats per token"}


def write_mixing_report(mixed: Mixed, folder: Path) -> list[Path]:
    """Write the confirmation's report, with the regression before it.

    Args:
        mixed: A mixing study that was run.
        folder: Where files go; those of an older report are replaced.

    Returns:
        What was written.

    Raises:
        StoreError: If the folder cannot be written.
    """
    return write_report(mixed.confirmation, folder, _blocks(mixed), {"mixtures": _facts(mixed)})


def found(mixed: Mixed) -> list[str]:
    """Say what was found, a sentence each: the regression, its proposal, the confirmation."""
    return [_worth(mixed), _proposal(mixed), *_confirmed(mixed)]


def _worth(mixed: Mixed) -> str:
    outcome, held = mixed.mixing.outcome, mixed.decisive.held_out
    n, mixtures = len(mixed.observed), sum(map(len, mixed.observed))
    over = f"{n} mixtures" if n == mixtures else f"{n} different students of {mixtures} mixtures"
    by = (
        f"R² {held.r2:.2f} and rank correlation {_number(held.rank)} (p = {held.p:.2g}) over "
        f"{over}, each predicted by a regression on the others"
    )
    if held.r2 <= 0:
        return (
            f"The regression of {outcome} on weights predicts nothing: {by}. What it proposes is a "
            "guess."
        )
    if not held.predicts:
        return f"What the regression of {outcome} on weights predicts may be chance: {by}."
    return f"The regression of {outcome} on weights orders mixtures that it did not see: {by}."


def _proposal(mixed: Mixed) -> str:
    proposal = mixed.proposal
    shares = ", ".join(
        f"{name} {points(weight)}% ({points(low)} to {points(high)})"
        for name, weight, low, high in zip(
            mixed.sources.groups, proposal.weights, proposal.low, proposal.high, strict=True
        )
    )
    unit = UNITS[mixed.mixing.outcome]
    gain, low, high = (
        _in_unit(value, mixed.mixing.outcome)
        for value in (proposal.gain, proposal.gain_low, proposal.gain_high)
    )
    return (
        f"It proposes {shares}, and promises {gain} {unit} ({low} to {high}) more than the weights "
        "of the base. Intervals are of 95%."
    )


def _confirmed(mixed: Mixed) -> list[str]:
    study, result = mixed.confirmation.study, mixed.confirmation
    if any(sat.failed for sat in result.sat):
        return []
    compared = differences(Outcomes.of(result.grades(), list(study.arms)))
    pooled = next(d for d in compared if d.benchmark is None)
    return [
        "Confirmation by new students: " + sentence(pooled, study.control, matters=study.matters)
    ]


def _blocks(mixed: Mixed) -> list[Block]:
    outcome = mixed.mixing.outcome
    names = list(mixed.sources.groups)
    lines = [
        Line(name, 100 * weight, 100 * low, 100 * high, against=100 * base)
        for name, weight, low, high, base in zip(
            names, mixed.proposal.weights, mixed.proposal.low, mixed.proposal.high,
            mixed.sources.base, strict=True,
        )
    ]  # fmt: skip
    scale = 100 if outcome == "accuracy" else 1
    held = mixed.decisive.held_out
    pairs = [
        (scale * float(p), scale * float(o))
        for p, o in zip(held.predicted, mixed.decisive.outcome, strict=True)
    ]
    unit = UNITS[outcome].replace("points", "%")
    title = f"Mixtures left out one at a time: {outcome}, {unit}"
    spent = [
        replace(block, heading="Cost of the random mixtures") if block.heading else block
        for block in cost([mixed.random])
    ]
    odd = oddities(mixed.random)
    shares = forest_svg("Percent of questions; ticks: the base", lines, zero=True)
    return [
        Block(points=found(mixed)),
        Block(heading="Proposed weights"),
        Block(plot=("weights.svg", shares)),
        Block(table=_weights(mixed)),
        Block(heading="The regression"),
        Block(table=_worths(mixed)),
        Block(
            text=f"Weights were proposed by {outcome}. Predictions are of mixtures that had no "
            "part in the fit nor in the choice of its form and penalty. R² is the share of the "
            "variance that is predicted: 0 is what the mean of the other mixtures would do."
        ),
        Block(plot=("predicted.svg", scatter_svg(title, pairs))),
        Block(heading="Random mixtures"),
        Block(text=_students(mixed)),
        Block(table=_mixtures(mixed)),
        *([Block(points=odd)] if odd else []),
        *spent,
        Block(heading=f"Confirmation: do the {PROPOSED} beat those of the base?"),
    ]


def _students(mixed: Mixed) -> str:
    student = mixed.random.study.student
    settings = ", ".join(f"{name} {value}" for name, value in student.settings.items())
    said = f"Each student: {student.model}, trainer {student.trainer}"
    if student.preset:
        said += f", preset {student.preset}"
    if settings:
        said += f", {settings}"
    if student == mixed.mixing.student:
        said += "; as those of the confirmation."
    else:
        said += "; those of the confirmation are other ones, as the study says."
    if any(len(same) > 1 for same in mixed.observed):
        said += (
            " Mixtures whose students saw the same rows are one observation, with the mean of "
            "their weights and outcomes."
        )
    return said


def _weights(mixed: Mixed) -> tuple[list[str], list[list[str]]]:
    header = ["source", "base, %", "proposed, %", "95% interval", "branches"]
    branches = mixed.sources.branches(mixed.proposal.weights)
    rows = [
        [name, points(base), points(weight), f"{points(low)} to {points(high)}",
         ", ".join(f"{b} {points(branches[b])}" for b in group)]
        for (name, group), base, weight, low, high in zip(
            mixed.sources.groups.items(), mixed.sources.base, mixed.proposal.weights,
            mixed.proposal.low, mixed.proposal.high, strict=True,
        )
    ]  # fmt: skip
    return header, rows


def _worths(mixed: Mixed) -> tuple[list[str], list[list[str]]]:
    header = ["outcome", "form", "penalty", "R², left out", "rank correlation, left out", "p"]
    rows = [
        [name, r.fit.form, f"{r.fit.penalty:g}", f"{r.held_out.r2:.2f}", _number(r.held_out.rank),
         f"{r.held_out.p:.2g}"]
        for name, r in mixed.regressed.items()
    ]  # fmt: skip
    return header, rows


def _mixtures(mixed: Mixed) -> tuple[list[str], list[list[str]]]:
    outcomes = list(mixed.regressed)
    header = ["mixture", *(f"{name}, %" for name in mixed.sources.groups)]
    for outcome in outcomes:
        unit = UNITS[outcome].replace("points", "%")
        header += [f"{outcome}, {unit}", "predicted without it"]
    rows = []
    for i, (names, weights) in enumerate(zip(mixed.observed, mixed.drawn, strict=True)):
        numbers = ", ".join(name.removeprefix(MIXTURE) for name in names)
        row = [numbers, *(points(weight) for weight in weights)]
        for outcome in outcomes:
            regressed = mixed.regressed[outcome]
            scale, digits = (100, 1) if outcome == "accuracy" else (1, 4)
            for value in (regressed.outcome[i], regressed.held_out.predicted[i]):
                row.append(f"{scale * value:.{digits}f}")
        rows.append(row)
    return header, rows


def _facts(mixed: Mixed) -> dict[str, Any]:
    proposal = mixed.proposal
    return {
        "found": found(mixed),
        "sources": list(mixed.sources.groups),
        "base": _plain(mixed.sources.base),
        "proposed": _plain(proposal.weights),
        "low": _plain(proposal.low),
        "high": _plain(proposal.high),
        "gain": [round(g, 6) for g in (proposal.gain, proposal.gain_low, proposal.gain_high)],
        "weights": [_plain(row) for row in mixed.drawn],
        "mixtures": [list(names) for names in mixed.observed],
        "regressions": {
            name: {
                "form": r.fit.form,
                "penalty": r.fit.penalty,
                "r2": round(r.held_out.r2, 6),
                "rank": None if math.isnan(r.held_out.rank) else round(r.held_out.rank, 6),
                "p": r.held_out.p,
                "outcome": _plain(r.outcome),
                "predicted": _plain(r.held_out.predicted),
            }
            for name, r in mixed.regressed.items()
        },
    }


def _plain(values: Sequence[float] | Any) -> list[float]:
    return [round(float(value), 6) for value in values]


def _in_unit(value: float, outcome: str) -> str:
    return points(value) if outcome == "accuracy" else f"{value:.4f}"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}"
