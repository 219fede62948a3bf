"""Recall and false accepts of the maths verifier by kind of edit, as tables in Markdown.

Real references are edited so that the effect on their value is known by construction
(`tests/answer_edits.py`); the verifier should accept what kept its value, and nothing else.

Run: STILLROOM_DATA=... python benches/verify_edits.py [--each 60] [--peer] [--write]

`--peer` asks plain math-verify the same; `--write` puts the tables into docs/verification.md.
"""

import argparse
import logging
import os
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from math_verify import parse, verify  # noqa: E402
from tests.answer_edits import Case, cases  # noqa: E402

from stillroom.verifiers import Task, verifier  # noqa: E402

PAGE = ROOT / "docs" / "verification.md"
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"


def peer_accepts(case: Case) -> bool:
    try:
        return bool(verify(parse(f"${case.reference}$"), parse(case.answer)))
    except Exception:  # whatever it raises, it did not accept
        return False


def table(made: list[Case], outcomes: list[str], peer: list[bool] | None, *, keeps: bool) -> str:
    total: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    undecided: Counter[str] = Counter()
    by_peer: Counter[str] = Counter()
    for place, (case, outcome) in enumerate(zip(made, outcomes, strict=True)):
        if case.keeps is not keeps:
            continue
        for kind in (case.kind, ""):
            total[kind] += 1
            accepted[kind] += outcome == "correct"
            undecided[kind] += outcome not in ("correct", "incorrect")
            by_peer[kind] += bool(peer and peer[place])
    kinds = [kind for kind in total if kind]
    lines = [
        "| edit | pairs | accepted | undecided | math-verify accepts |",
        "| --- | --: | --: | --: | --: |",
    ]
    for kind in [*kinds, ""]:
        theirs = str(by_peer[kind]) if peer else ""
        name = kind.replace("|", r"\|") if kind else f"**all {len(kinds)} kinds**"
        lines.append(
            f"| {name} | {total[kind]} | {accepted[kind]} | {undecided[kind]} | {theirs} |"
        )
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--each", type=int, default=60, help="pairs of each kind")
    options.add_argument("--peer", action="store_true")
    options.add_argument("--write", action="store_true")
    options.add_argument(
        "--show", action="store_true", help="print each pair that is judged wrongly"
    )
    args = options.parse_args()
    logging.disable()
    made = list(cases(Path(os.environ["STILLROOM_DATA"]), each=args.each))
    with verifier("math", workers=2) as maths:
        verdicts = maths.verify([Task(case.answer, case.reference) for case in made])
        name = maths.name
    outcomes = [verdict.outcome for verdict in verdicts]
    peer = [peer_accepts(case) for case in made] if args.peer else None
    if args.show:
        for case, verdict in zip(made, verdicts, strict=True):
            if (verdict.outcome == "correct") != case.keeps:
                print(
                    f"{case.kind:28} {case.reference!r} ~ {verdict.extracted!r} "
                    f"{verdict.outcome} {verdict.detail or ''}"
                )
    kept = [
        outcome == "correct" for case, outcome in zip(made, outcomes, strict=True) if case.keeps
    ]
    changed = [
        outcome == "correct" for case, outcome in zip(made, outcomes, strict=True) if not case.keeps
    ]
    text = (
        f"Verifier: {name}. {len(made):,} pairs, up to {args.each} of each kind. Recall on edits "
        f"that keep the value: {sum(kept) / len(kept):.2%} of {len(kept):,}. Accepted of edits "
        f"that change it: {sum(changed) / len(changed):.2%} of {len(changed):,}.\n\n"
        f"Edits that keep the value:\n\n{table(made, outcomes, peer, keeps=True)}\n\n"
        f"Edits that change the value:\n\n{table(made, outcomes, peer, keeps=False)}\n"
    )
    print(text)
    if args.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
