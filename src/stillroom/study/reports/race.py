"""The report of a race: what it ended with, who left when and why, and what it saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillroom.study.race.run import Raced, Ran, race_of
from stillroom.study.reports.curves import Point, curves_svg
from stillroom.study.reports.forest import Line, forest_svg
from stillroom.study.reports.page import Block, write
from stillroom.study.reports.study import details
from stillroom.study.reports.verdict import points
from stillroom.study.result import Result, Sat, asked_by
from stillroom.study.statistics.comparing import Score, decision_accuracy, scores
from stillroom.study.statistics.errors import Estimate


@dataclass(frozen=True)
class Work:
    """What was spent, or would have been.

    Attributes:
        students: Students trained.
        learnt: Rows (or answer tokens) that they learnt from, repeats counted.
        seconds: Of training, on the CPU where the trainer counts that; None where no student of the
            last scale tells.
        attempts: Attempts on benchmarks.
        asked: Completions that recipes asked for, each step once; None where no student of the last
            scale tells.
    """

    students: int
    learnt: int
    seconds: float | None
    attempts: int
    asked: float | None


def spent(raced: Raced) -> Work:
    """Add up what a race spent, each student once."""
    once = {
        sat.student: (sat, ran)
        for ran in raced.rounds
        for sat in ran.result.sat
        if sat.student and not sat.failed
    }
    return Work(
        len(once),
        sum(ran.round.scale.size for _, ran in once.values()),
        sum(_seconds(sat) for sat, _ in once.values()),
        sum(_attempts(sat) for sat, _ in once.values()),
        sum(_asked([ran.result for ran in raced.rounds])),
    )


def full_grid(raced: Raced) -> Work:
    """Return what the same study without a race would have spent.

    Its students are taken to train as long as those of the last scale that the race trained, and
    what no two students share to ask for as many completions.
    """
    study = raced.study
    students = len(study.arms) * study.seeds
    last = len(race_of(study).scales) - 1
    known = {
        sat.student: _seconds(sat)
        for ran in raced.rounds
        for sat in ran.result.sat
        if ran.round.place == last and sat.student and not sat.failed
    }
    ends = [ran.result for ran in raced.rounds if ran.round.place == last]
    shared, own = _asked(ends)
    attempts = max(_attempts(sat) for ran in raced.rounds for sat in ran.result.sat)
    return Work(
        students,
        students * (study.rows or study.tokens or 0),
        students * sum(known.values()) / len(known) if known else None,
        students * attempts,
        shared + students * own / len(known) if known else None,
    )


def _asked(results: Sequence[Result]) -> tuple[float, float]:
    """Count completions asked for by steps that several students share, and by those of one."""
    users: dict[str, set[tuple[str, int]]] = {}
    asked: dict[str, float] = {}
    for result in results:
        for place, steps in result.built.items():
            for built in steps:
                manifest = built.artifact.manifest
                users.setdefault(manifest.key, set()).add(place)
                asked[manifest.key] = asked_by(built)
    shared = sum(n for key, n in asked.items() if len(users[key]) > 1)
    return shared, sum(asked.values()) - shared


def _seconds(sat: Sat) -> float:
    return float(sat.trained.get("details", {}).get("cpu_s", sat.seconds))


def _attempts(sat: Sat) -> int:
    return sum(grades.table.height for grades in sat.grades.values())


def outcome(raced: Raced) -> list[str]:
    """Say how a race ended, a sentence each."""
    study, sure = raced.study, f"{100 * raced.rule.confidence:g}% confidence"
    matters = f"{points(study.matters)} points"
    said = []
    if raced.ending == "best":
        said.append(
            f"{raced.winner} is the best of {len(study.arms)} arms ({sure}): every other arm was "
            "worse than one that was in."
        )
    elif raced.ending == "close":
        close = _close(raced)
        said.append(f"{raced.winner} wins ({sure}): no arm is better than it by {matters} or more.")
        if len(close) > 1:
            asked = {raced.asked[arm] for arm in close}
            why = (
                f"{raced.winner} asks for the fewest completions"
                if len(asked) > 1
                else f"all ask for as many completions, and {raced.winner} has the highest mean"
            )
            said.append(f"As much holds of {_names(close)}; {why}.")
        open_ = [arm for arm in raced.left if arm not in close]
        if open_:
            said.append(
                f"{_names(open_)} {'is' if len(open_) == 1 else 'are'} not told apart from it, and "
                "may be worse by more."
            )
    elif raced.ending == "open":
        end = raced.rounds[-1].look
        spans = "; ".join(
            f"{arm} {_signed(by)}" for arm, by in (end.behind.items() if end else ())
            if arm in raced.left
        )  # fmt: skip
        said.append(
            f"No winner: {_names(raced.left)} cannot be told apart after the last round. The best "
            f"arm is among them ({sure}). From {raced.left[0]}, in points: {spans}."
        )
    elif raced.ending == "alone":
        said.append(f"{raced.winner} is the only arm that was trained; nothing was compared.")
    else:
        said.append("No arm was trained.")
    return said + [_left(ran) for ran in raced.rounds if ran.look and ran.look.lost]


def _left(ran: Ran) -> str:
    assert ran.look
    names = _names([lost.arm for lost in ran.look.lost])
    text = f"Out in round {ran.round.number} ({ran.round.words}): {names}"
    if ran.margin:
        text += (
            ", on the assumption that the best arm of the last scale is behind no other here by "
            f"more than {points(ran.margin)} points"
        )
    return text + "."


def _close(raced: Raced) -> tuple[str, ...]:
    look = raced.rounds[-1].look
    return look.close if look else ()


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _signed(by: Estimate) -> str:
    return f"{100 * by.value:+.1f} ({100 * by.low:+.1f} to {100 * by.high:+.1f})"


def write_race_report(raced: Raced, folder: Path) -> list[Path]:
    """Write ``report.md``, ``report.html``, their plots and ``results.json``.

    Args:
        raced: A race that ended.
        folder: Where they go; files of an older report are replaced.

    Returns:
        What was written.

    Raises:
        StoreError: If the folder cannot be written.
    """
    return write(folder, raced.study.question, _blocks(raced), _facts(raced))


def _blocks(raced: Raced) -> list[Block]:
    study = raced.study
    blocks = [Block(heading=study.question)]
    if study.hypothesis:
        blocks.append(Block(text=f"Hypothesis, written before the runs: {study.hypothesis}"))
    blocks.append(Block(points=outcome(raced)))
    blocks.append(Block(text=_promise(raced)))
    failed = [f"{arm}: {why}" for ran in raced.rounds for arm, why in ran.failed.items()]
    if failed:
        blocks.append(Block(text="Not trained, and so left without being judged:"))
        blocks.append(Block(points=failed))
    blocks += _rounds(raced)
    for ran in raced.rounds:
        blocks += _round(raced, ran)
    blocks += _scales(raced)
    blocks += _saved(raced)
    first = raced.rounds[0]
    if first.outcomes and first.result.built:
        blocks.append(Block(text=f"What follows is of round 1, {first.round.words}."))
        blocks += details(first.result, first.outcomes.arms)
    return blocks + _keys(raced)


def _promise(raced: Raced) -> str:
    study, rule = raced.study, raced.rule
    return (
        f"A race of {rule.arms} arms in at most {rule.rounds} rounds, ended as soon as no arm left "
        f"can be better than the chosen one by {points(study.matters)} points or more. Intervals "
        f"are of {100 * rule.level:.2f}%, so that those of {rule.arms - 1} comparisons with the "
        f"best arm in {rule.rounds} rounds hold together with {100 * rule.confidence:g}%. "
        f"Students: {study.student.model}, by the trainer {study.student.trainer}. What holds for "
        "this student at this size need not hold for another."
    )


def _rounds(raced: Raced) -> list[Block]:
    rows = []
    for ran, added in zip(raced.rounds, raced.results, strict=True):
        students = {sat.student for sat in added.sat if not sat.failed}
        lost = [one.arm for one in ran.look.lost] if ran.look else []
        rows.append(
            [
                str(ran.round.number), ran.round.scale.words, str(ran.round.seeds),
                points(ran.margin), str(len(ran.arms)), str(len(students)),
                ", ".join([*lost, *ran.failed]) or "nobody", ", ".join(ran.left) or "nobody",
            ]
        )  # fmt: skip
    header = [
        "round", "size", "seeds", "margin, points", "arms", "students trained", "out", "still in",
    ]  # fmt: skip
    return [Block(heading="Rounds"), Block(table=(header, rows))]


def _round(raced: Raced, ran: Ran) -> list[Block]:
    if ran.look is None:
        return []
    seen = ran.look
    first = next(iter(seen.means))
    lost = {one.arm: one for one in seen.lost}
    lines = [
        Line(arm, 100 * by.value, 100 * by.low, 100 * by.high, -1 if arm in lost else 0)
        for arm, by in seen.behind.items()
    ]
    rows = []
    for arm, mean in seen.means.items():
        if arm in lost:
            one = lost[arm]
            state = f"out: {_signed(one.by)} from {one.to}"
        else:
            state = "close" if arm in seen.close else "in"
        behind = _signed(seen.behind[arm]) if arm in seen.behind else ""
        rows.append([arm, points(mean), behind, state])
    title = f"Points from {first}, {ran.round.words}"
    header = ["arm", "right, %", f"from {first}, points ({100 * raced.rule.level:.2f}%)", "state"]
    return [
        Block(heading=f"Round {ran.round.number}: {ran.round.words}"),
        Block(plot=(f"round-{ran.round.number}.svg", forest_svg(title, lines, zero=True))),
        Block(table=(header, rows)),
    ]


def _scales(raced: Raced) -> list[Block]:
    """Show what arms did at each scale, and how far the scales agree."""
    scored = _scored(raced)
    if len({size for size, _ in scored}) < 2:
        return []
    curves = {
        arm: [_point(size, score) for (size, name), score in scored.items() if name == arm]
        for arm in raced.study.arms
    }
    unit = "rows" if raced.study.rows else "answer tokens"
    title = "Right, %, by scale, with the interval of each arm's own score"
    blocks = [Block(heading="Scales")]
    blocks.append(
        Block(plot=("scales.svg", curves_svg(title, unit, {a: c for a, c in curves.items() if c})))
    )
    end = race_of(raced.study).scales[-1].size
    last = {arm: score.estimate.value for (size, arm), score in scored.items() if size == end}
    for scale in race_of(raced.study).scales[:-1]:
        means = {
            arm: score.estimate.value
            for (size, arm), score in scored.items()
            if size == scale.size and arm in last
        }
        if len(means) < 2:
            continue
        changed = max(
            (last[b] - last[a]) - (means[b] - means[a]) for a in means for b in means if a != b
        )
        blocks.append(
            Block(
                text=f"Of the {len(means)} arms that ran at {scale.words} and at the last scale, "
                f"{100 * decision_accuracy(means, last):.0f}% of pairs stand in the same order at "
                "both. The largest change of a difference between two of them is "
                f"{points(changed)} points, noise of both scales included; the margin was "
                f"{points(race_of(raced.study).margin)}. Of arms that left before, nothing is "
                "known at the last scale: for them the margin is an assumption."
            )
        )
    return blocks


def _scored(raced: Raced) -> dict[tuple[int, str], Score]:
    """Return size and arm to score, over as many seeds as the arm ran there."""
    found: dict[tuple[int, str], Score] = {}
    for ran in raced.rounds:
        if ran.outcomes:
            pooled = [score for score in scores(ran.outcomes) if score.benchmark is None]
            found |= {(ran.round.scale.size, score.arm): score for score in pooled}
    return found


def _point(size: int, score: Score) -> Point:
    estimate = score.estimate
    return Point(size, 100 * estimate.value, 100 * estimate.low, 100 * estimate.high)


def _saved(raced: Raced) -> list[Block]:
    race, grid = spent(raced), full_grid(raced)
    unit = "rows learnt" if raced.study.rows else "answer tokens learnt"
    trained = [sat.trained.get("details", {}) for one in raced.results for sat in one.sat]
    clock = "CPU seconds" if any("cpu_s" in details for details in trained) else "seconds"

    def row(name: str, used: float, whole: float | None) -> list[str]:
        if not whole:
            return [name, f"{used:,.0f}", "not known", "not known"]
        return [name, f"{used:,.0f}", f"{whole:,.0f}", f"{100 * (1 - used / whole):.0f}%"]

    rows = [
        row("students trained", race.students, grid.students),
        row(unit, race.learnt, grid.learnt),
        row(f"{clock} of training", race.seconds or 0.0, grid.seconds),
        row("completions asked for", race.asked or 0.0, grid.asked),
        row("attempts on benchmarks", race.attempts, grid.attempts),
    ]
    return [
        Block(heading="What the race saved"),
        Block(
            text=f"The full grid is every arm with {raced.study.seeds} seeds at the last scale. It "
            "was not run: its students are taken to train as long, and to ask for as many "
            "completions, as those of the last scale. A negative number is what the race cost on "
            "top."
        ),
        Block(table=(["", "race", "full grid", "saved"], rows)),
    ]


def _keys(raced: Raced) -> list[Block]:
    rows, known = [], set()
    for ran in raced.rounds:
        for sat in ran.result.sat:
            if sat.student and sat.student not in known:
                known.add(sat.student)
                grades = ", ".join(g.keys["verify"] for g in sat.grades.values())
                rows.append([sat.arm, str(sat.seed), ran.round.scale.words, sat.student, grades])
    return [
        Block(heading="Keys"),
        Block(text="Artifacts in the store from which every number above was made."),
        Block(table=(["arm", "seed", "size", "student", "grades"], rows)),
    ]


def _facts(raced: Raced) -> dict[str, Any]:
    """Return the numbers for programs."""
    return {
        "study": raced.study.model_dump(mode="json"),
        "verdict": outcome(raced),
        "ending": raced.ending,
        "winner": raced.winner,
        "left": list(raced.left),
        "close": list(_close(raced)),
        "asked": dict(raced.asked),
        "level": raced.rule.level,
        "rounds": [_round_facts(ran) for ran in raced.rounds],
        "spent": vars(spent(raced)),
        "full_grid": vars(full_grid(raced)),
    }


def _round_facts(ran: Ran) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "round": ran.round.number, "size": ran.round.scale.size, "seeds": ran.round.seeds,
        "margin": ran.margin, "arms": list(ran.arms), "left": list(ran.left),
        "failed": dict(ran.failed),
    }  # fmt: skip
    if ran.look:
        facts["means"] = dict(ran.look.means)
        facts["behind"] = {arm: _interval(by) for arm, by in ran.look.behind.items()}
        facts["lost"] = [
            {"arm": one.arm, "to": one.to, **_interval(one.by)} for one in ran.look.lost
        ]
    return facts


def _interval(by: Estimate) -> Mapping[str, float]:
    return {"value": by.value, "low": by.low, "high": by.high}
