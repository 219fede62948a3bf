"""What is odd about a student, so that nobody takes its score for a finding."""

from collections.abc import Iterable
from itertools import combinations

from stillroom.study.result import Sat
from stillroom.text.normal import normal_form

MOST = 0.99
"""Share of attempts from which on all of them are said to have ended so."""

FEW = 0.1
"""Share of rows that may be skipped, cut or unseen without a mark."""

LOST = 0.01
"""Share of attempts without a reply or a verdict, which count as wrong, that goes unmarked."""


def marks(sat: Sat) -> list[str]:
    """Say what is odd about a student, a phrase each.

    Args:
        sat: A trained and graded student.
    """
    return [*_learnt(sat), *_rows(sat), *_answers(sat)]


def twins(students: Iterable[Sat]) -> list[str]:
    """Name arms that showed their students the same rows: what they change never got there.

    Args:
        students: Of all arms and seeds.

    Returns:
        A phrase for each group of such arms.
    """
    by_arm: dict[str, set[tuple[int, str]]] = {}
    for sat in students:
        if sat.shown:
            by_arm.setdefault(sat.arm, set()).add((sat.seed, sat.shown))
    groups: dict[frozenset[tuple[int, str]], list[str]] = {}
    for arm, shown in by_arm.items():
        groups.setdefault(frozenset(shown), []).append(arm)
    return [
        f"{', '.join(arms[:-1])} and {arms[-1]}: trained on the same rows, with every seed; what "
        "they change does not reach a student"
        for arms in groups.values()
        if len(arms) > 1
    ]


def notes(students: Iterable[Sat]) -> list[str]:
    """Gather what readers of benchmark scores should know, each note once."""
    all_of_them = list(students)
    own = dict.fromkeys(
        f"{name}: {note}"
        for sat in all_of_them
        for name, grades in sat.grades.items()
        for note in grades.notes
    )
    return [*own, *shared(all_of_them)]


def shared(students: Iterable[Sat]) -> list[str]:
    """Say which benchmarks ask the same questions, a sentence for each two.

    Args:
        students: All that sat; all sat the same.
    """
    sat = next((one for one in students if one.grades), None)
    if sat is None:
        return []
    asked = {
        name: {
            normal_form(text) for text in grades.attempts.parent.scan("question").collect()[:, 0]
        }
        for name, grades in sat.grades.items()
        if grades.attempts and grades.attempts.parent
    }
    return [
        f"{len(both):,} of {len(asked[one]):,} questions of {one} are asked by {other} too: they "
        "count in each, and intervals over all benchmarks take them for different questions."
        for one, other in combinations(asked, 2)
        if (both := asked[one] & asked[other])
    ]


def _learnt(sat: Sat) -> list[str]:
    """Compare the first tenth of the training with the last."""
    losses = sat.trained.get("losses") or []
    part = max(1, len(losses) // 10)
    if len(losses) < 2:
        return []
    first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
    # Written so that a loss that is no number is marked too.
    return (
        [] if last < first else [f"it learnt nothing: its loss went from {first:.3g} to {last:.3g}"]
    )


def _rows(sat: Sat) -> list[str]:
    used, skipped = sat.trained.get("rows") or 0, sat.trained.get("skipped") or 0
    cut, unseen = sat.trained.get("truncated") or 0, sat.trained.get("unseen") or 0
    said = []
    if skipped > FEW * (used + skipped):
        said.append(f"{skipped:,} of {used + skipped:,} rows were too long to learn from")
    if unseen > FEW * (used + unseen):
        said.append(f"training ended before {unseen:,} of {used + unseen:,} rows were seen")
    if cut > FEW * used:
        said.append(f"{cut:,} of {used:,} rows were cut to fit")
    return said


def _answers(sat: Sat) -> list[str]:
    said = []
    for name, grades in sat.grades.items():
        if grades.share("finish_reason", "length") >= MOST:
            said.append(f"on {name} the limit of tokens cut every answer")
        elif grades.share("verdict", "unparsed") >= MOST:
            said.append(f"on {name} no answer could be read")
        elif grades.share("verdict", "error") >= MOST:
            said.append(f"on {name} no attempt got a reply or a verdict")
        elif (lost := grades.share("verdict", "error")) > LOST:
            said.append(
                f"on {name} {lost:.1%} of attempts got no reply or no verdict, and count as wrong"
            )
    return said
