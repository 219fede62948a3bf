"""Write the proxy suite: held-out questions of every family and level, and planted copies of some.

The suite is data and is committed; this script says where it came from. It refuses to change an
existing suite, because numbers measured on it would no longer compare.
"""

import json
import random
import sys
from pathlib import Path

from stillroom.families import FAMILIES, LEVELS, problem

PER_CELL = 10
COPIES = 24
PACKAGE = Path(__file__).parents[1] / "src" / "stillroom"
SUITE = PACKAGE / "benchmarks" / "proxy_suite.jsonl"
PLANTED = PACKAGE / "steps" / "source" / "planted_copies.jsonl"


def suite() -> list[dict[str, str | int]]:
    """Draw the items: the first ten different questions of each family and level."""
    items: list[dict[str, str | int]] = []
    for family in FAMILIES:
        for level in LEVELS:
            questions: dict[str, str] = {}
            index = 0
            while len(questions) < PER_CELL:
                item = problem(family, level=level, index=index, split="heldout")
                questions.setdefault(item.question, item.reference)
                index += 1
            for number, (question, reference) in enumerate(questions.items()):
                items.append(
                    {
                        "id": f"{family}-{level}-{number}",
                        "domain": FAMILIES[family].domain,
                        "family": family,
                        "level": level,
                        "question": question,
                        "answer": reference,
                    }
                )
    return items


def planted(items: list[dict[str, str | int]]) -> list[dict[str, str | int]]:
    """Copy some items with other case and spacing, as copies are met in the wild."""
    rng = random.Random("planted copies")
    copies = []
    for number, item in enumerate(rng.sample(items, COPIES)):
        question = str(item["question"])
        edits = (question.upper(), question.replace(" ", "  "), f"  {question}\n")
        copies.append(
            {
                "id": f"copy-{number}",
                "domain": item["domain"],
                "copy_of": item["id"],
                "question": edits[number % 3],
                "answer": item["answer"],
            }
        )
    return copies


def main() -> None:
    """Write both files, unless they are there."""
    for path in (SUITE, PLANTED):
        if path.exists():
            sys.exit(f"{path}: is there already; expected none. Delete it if you mean it.")
    items = suite()
    for path, rows in ((SUITE, items), (PLANTED, planted(items))):
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{path.name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
