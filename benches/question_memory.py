"""Peak memory and time of every question-level step on a million questions.

The limit: 2 GB for any step, and reading and writing the rows once is the work that cannot be
avoided. Each step runs in a process of its own on a store that holds the steps before it, so its
peak is its own. Questions are generated: 460 characters on average, one in ten a repeat.

Usage: python benches/question_memory.py [rows]
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_GB = 2.0
STEPS = (
    "- mix: {all: [{source: {file: questions.jsonl, reference: answer, columns: {n: number}}}]}",
    "- dedup: exact",
    "- decontaminate: {against: proxy_suite, ngram: 13}",
    "- label: length",
    "- label: rules\n  as: rules",
    "- keep: {where: {has_url: false, length: {min: 20}}}",
    "- keep: {top: 500000, by: n}\n  as: top",
    "- take: 100000",
)
RUN = """
import resource, sys
from pathlib import Path
from stillroom.models.config import load_config
from stillroom.recipe.load import read_recipe
from stillroom.recipe.pipeline import walk
from stillroom.run.runner import Runner
from stillroom.steps.base import Runtime
from stillroom.store.store import Store
text, folder = sys.stdin.read(), Path(sys.argv[1])
rt = Runtime(load_config(), lambda: None, {"questions": str(folder / "questions.jsonl")})
runner = Runner(Store(folder / "store"), rt)
walk(read_recipe(text).bound(), runner)
last = runner.built[-1].artifact.manifest
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, last.rows_in, last.rows_out,
      [b.path for b in runner.built if not b.cached])
"""


def write_questions(path: Path, rows: int) -> None:
    """Write rows of word salad, as long as questions are; one in ten is a repeat."""
    rng = random.Random(1)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5_000)]
    recent: list[str] = []
    with path.open("w") as file:
        for i in range(rows):
            if recent and i % 10 == 0:
                text = rng.choice(recent)
            else:
                text = " ".join(rng.choices(words, k=rng.randint(20, 120)))
                recent = [*recent[-999:], text]
            file.write(json.dumps({"question": text, "answer": str(i), "n": rng.random()}) + "\n")


def main() -> None:
    """Run the steps one after the other and print a line for each."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_questions(folder / "questions.jsonl", rows)
        size = (folder / "questions.jsonl").stat().st_size / 1e9
        print(f"{rows:,} questions, {size:.2f} GB of JSON Lines; limit {LIMIT_GB} GB")
        worst = 0.0
        for n in range(1, len(STEPS) + 1):
            chain = "\n".join("    " + line for step in STEPS[:n] for line in step.splitlines())
            text = f"name: bench\ndomains:\n  math:\n{chain}\n"
            started = time.monotonic()
            done = subprocess.run([sys.executable, "-c", RUN, name], input=text, text=True,
                                  capture_output=True, check=False)  # fmt: skip
            if done.returncode:
                sys.exit(done.stderr)
            seconds = time.monotonic() - started
            peak, rows_in, rows_out, _ = done.stdout.split(maxsplit=3)
            worst = max(worst, float(peak))
            step = STEPS[n - 1].split(":")[0][2:]
            print(f"{step:15} {int(rows_in):>9,} -> {int(rows_out):>9,} rows  "
                  f"{seconds:6.1f} s  peak {float(peak):.2f} GB")  # fmt: skip
        print(f"worst {worst:.2f} GB, {worst / LIMIT_GB:.2f} of the limit")


if __name__ == "__main__":
    main()
