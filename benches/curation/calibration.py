"""How much planted contamination each method finds, and what it drops for nothing.

Planted: real benchmark items, changed in one way each, the same items for every way; and two kinds
that nobody made up: other typesettings of AIME and HMMT, and translations of OlymMATH.

Clean by date: real questions that were public by 2022, searched for items of contests held since
May 2023. What is dropped there is dropped for nothing, apart from a contest that repeats itself.

Needs STILLROOM_DATA. Prints a table; with --write, puts it into docs/decontamination.md. The same
data gives the same table.
"""

import argparse
import io
import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import polars as pl
import zstandard
from data import edited

from stillroom.steps.decontaminate.items import Items
from stillroom.steps.decontaminate.search import Grams, Search

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "decontamination.md"
BEGIN, END = "<!-- calibration: begin -->", "<!-- calibration: end -->"

BENCHMARKS = (
    "math500", "aime24", "aime25", "amc23", "hmmt_feb25", "jeebench", "livecodebench_questions",
    "codeforces_test_408", "olymmath",
)  # fmt: skip
RECENT = ("aime24", "aime25", "amc23", "hmmt_feb25", "livecodebench_questions")
"""Contests held since May 2023."""
OLD = ("gsm8k_train", "math_train", "mbpp_train_val", "aime_1983_2023")
"""Questions that were public by 2022, once AIME 2023 is taken out."""

PLANTED = 220
"""Items changed in each way: with fourteen ways, about as many rows as in the paper's check."""
CLEAN = 3_000

METHODS: dict[str, tuple[float | None, Grams | None, str]] = {
    "indel 75": (75, None, "normal"),
    "indel 85": (85, None, "normal"),
    "indel 90": (90, None, "normal"),
    "indel 95": (95, None, "normal"),
    "indel 75, raw": (75, None, "raw"),
    "8 words": (None, Grams(n=8), "normal"),
    "10 words": (None, Grams(n=10), "normal"),
    "13 words": (None, Grams(n=13), "normal"),
    "indel 75 + 13 words": (75, Grams(n=13), "normal"),
}


def main() -> None:
    """Measure, print, and write the page if told to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    parser.add_argument("--planted", type=int, default=PLANTED, help="items for each change")
    parser.add_argument("--clean", type=int, default=CLEAN, help="clean questions")
    options = parser.parse_args()
    if not os.environ.get("STILLROOM_DATA"):
        sys.exit("STILLROOM_DATA: not set; expected the folder of real questions.")
    text = measure(options.planted, options.clean)
    print(text)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}")


def measure(n_planted: int, n_clean: int) -> str:
    """Return the table, as Markdown."""
    items, recent = read_items(BENCHMARKS), read_items(RECENT)
    planted = plant(items, n_planted)
    clean = random.Random("clean").sample(old_questions(), n_clean)
    everything = [text for texts in planted.values() for text in texts]
    rows: dict[str, list[str]] = {
        kind: [kind, f"{len(texts):,}"] for kind, texts in planted.items()
    }
    made_up = n_planted * len(WAYS)
    total = ["**all of these**", f"{made_up:,}"]
    dated = ["**clean by date, dropped**", f"{len(clean):,}"]
    all_clean = ["the same against all items, dropped", f"{len(clean):,}"]
    for indel, grams, form in METHODS.values():
        search = Search(items, indel, grams, form, workers=os.cpu_count() or 1)
        hits = found(search, everything)
        start = 0
        for kind, texts in planted.items():
            share = sum(i in hits for i in range(start, start + len(texts))) / len(texts)
            rows[kind].append(f"{100 * share:.1f}%")
            start += len(texts)
        total.append(f"{100 * sum(i < made_up for i in hits) / made_up:.1f}%")
        late = Search(recent, indel, grams, form, workers=os.cpu_count() or 1)
        for row, one in ((dated, late), (all_clean, search)):
            n = len(found(one, clean))
            row.append(f"{n:,} ({100 * n / len(clean):.2f}%)")
    head = ["", "rows", *METHODS]
    kinds = list(rows.values())
    kinds.insert(len(WAYS), total)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *kinds, dated, all_clean]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{len(items.names):,} items of {len(BENCHMARKS)} benchmarks, {len(recent.names):,} of "
        f"them of contests since May 2023. Found of what was planted:\n\n{table}\n"
    )


def found(search: Search, texts: Sequence[str]) -> set[int]:
    """Return the places of the texts that a search finds."""
    return set(search.find(pl.Series(texts, dtype=pl.String))["row"])


# Real texts


def records(path: str) -> list[dict[str, str]]:
    """Read a file of STILLROOM_DATA."""
    with Path(os.environ["STILLROOM_DATA"], path).open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return [json.loads(line) for line in io.TextIOWrapper(stream, "utf-8")]


def read_items(names: Iterable[str]) -> Items:
    """Read benchmarks; of OlymMATH the English half."""
    items = Items([], [])
    for name in names:
        for number, row in enumerate(records(f"benchmarks/{name}.jsonl.zst")):
            if not row.get("split", "").startswith("ZH"):
                items.names.append(f"{name}:{number}")
                items.texts.append(row["question"])
    return items


def old_questions() -> list[str]:
    """Return questions that were public by 2022, each once."""
    rows = [row for name in OLD for row in records(f"fixtures/{name}.jsonl.zst")]
    texts = [row["question"] for row in rows if str(row.get("year", "")) != "2023"]
    return list(dict.fromkeys(texts))


# Ways to hide an item


def plant(items: Items, n: int) -> dict[str, list[str]]:
    """Change n items in every way, and add what was retypeset and translated by others."""
    rng = random.Random("planted")
    english = [text for text in items.texts if len(text.split()) >= 8]
    chosen = rng.sample(english, n)
    planted = {
        kind: [way(text, random.Random(f"{kind}/{i}")) for i, text in enumerate(chosen)]
        for kind, way in WAYS.items()
    }
    copies = records("benchmarks/comp_math_24_25.jsonl.zst")
    planted["AIME as others typeset it"] = [
        row["question"] for row in copies if row["subset"] in ("aime24", "aime25")
    ]
    planted["OlymMATH in Chinese"] = [
        row["question"]
        for row in records("benchmarks/olymmath.jsonl.zst")
        if row["split"].startswith("ZH")
    ]
    return planted


NUMBER = re.compile(r"\d+")
SENTENCE = re.compile(r"(?<=[.?!])\s+")
SYNONYMS = {
    "find": "determine", "determine": "find", "compute": "calculate", "calculate": "work out",
    "evaluate": "compute", "what is": "give", "how many": "what number of", "let": "suppose",
    "given": "we are given", "such that": "so that", "the number of": "how many", "each": "every",
    "all": "every one of the", "positive": "strictly positive", "integers": "whole numbers",
    "integer": "whole number", "exactly": "precisely", "contains": "has", "has": "possesses",
    "there are": "we have", "print": "output", "output": "print", "you are given": "the input is",
    "value": "amount", "smallest": "least", "largest": "greatest", "total": "overall",
    "equal to": "the same as", "point": "location", "between": "in between", "every": "each",
}  # fmt: skip
WORDING = re.compile(r"\b(" + "|".join(sorted(SYNONYMS, key=len, reverse=True)) + r")\b", re.I)
TYPESETTING = (
    (r"\le", r"\leqslant"), (r"\ge", r"\geqslant"), (r"\frac", r"\dfrac"), (r"\ldots", r"\dots"),
    (r"\cdot", r"\times"), (r"\left", ""), (r"\right", ""), (r"\,", " "), (r"\text", r"\mathrm"),
)  # fmt: skip
COMMAND = re.compile("|".join(f"{re.escape(old)}(?![A-Za-z])" for old, _ in TYPESETTING))


def reworded(text: str, rng: random.Random) -> str:
    """Put other words for common ones."""
    return WORDING.sub(lambda match: SYNONYMS[match[0].lower()], text)


def one_word_in(share: int) -> Callable[[str, random.Random], str]:
    """Make a way that changes one word in so many: it goes, is doubled, or another comes."""

    def change(text: str, rng: random.Random) -> str:
        return edited(text, rng, 1 / share)

    return change


def renumbered(text: str, rng: random.Random) -> str:
    """Put other numbers in."""
    return NUMBER.sub(lambda match: str(int(match[0]) + rng.randint(1, 9)), text)


def repunctuated(text: str, rng: random.Random) -> str:
    """Take punctuation away, or put other marks."""
    marks = {",": rng.choice(["", ";"]), ".": rng.choice(["", "!"]), "?": "", ":": " -", "$": ""}
    return "".join(marks.get(letter, letter) for letter in text)


def recased(text: str, rng: random.Random) -> str:
    """Change case and white space."""
    text = rng.choice([str.upper, str.lower, str.title])(text)
    return f"  {text.replace(' ', rng.choice(['  ', chr(10), chr(0xA0)]))}\n"


def retypeset(text: str, rng: random.Random) -> str:
    """Write LaTeX in another habit; text without any gets its numbers put into formulas."""
    if "$" not in text and "\\" not in text:
        return NUMBER.sub(lambda match: f"${match[0]}$", text)
    table = dict(TYPESETTING)
    text = COMMAND.sub(lambda match: table[match[0]], text)
    return re.sub(r"\$([^$]+)\$", r"\\( \1 \\)", text)


def beginning(share: float) -> Callable[[str, random.Random], str]:
    """Make a way that keeps the first part of the words."""

    def cut(text: str, rng: random.Random) -> str:
        words = text.split(" ")
        return " ".join(words[: max(1, int(share * len(words)))])

    return cut


def reordered(text: str, rng: random.Random) -> str:
    """Put the sentences into another order."""
    sentences = SENTENCE.split(text)
    rng.shuffle(sentences)
    return " ".join(sentences)


INSTRUCTIONS = (
    "Solve the following problem step by step and put the final answer in \\boxed{{}}.\n\n{}",
    "You are a careful mathematician. Here is a task:\n{}\nThink aloud, then answer.",
    "Question: {}\n\nAnswer with a short explanation. Do not use a calculator.",
)


def instructed(text: str, rng: random.Random) -> str:
    """Wrap the text into instructions."""
    return rng.choice(INSTRUCTIONS).format(text)


def with_more_text(text: str, rng: random.Random) -> str:
    """Put another question before it, and a third one behind."""
    before, after = rng.sample(others(), 2)
    return f"{before}\n\n{text}\n\n{after}"


@cache
def others() -> list[str]:
    """Return questions to stand beside an item."""
    return [row["question"] for row in records("fixtures/gsm8k_train.jsonl.zst")]


def with_options(text: str, rng: random.Random) -> str:
    """Make it multiple choice."""
    options = [rng.randint(1, 999) for _ in range(5)]
    lines = [f"({letter}) {number}" for letter, number in zip("ABCDE", options, strict=True)]
    return "\n".join([text, *lines])


WAYS: dict[str, Callable[[str, random.Random], str]] = {
    "exact copy": lambda text, rng: text,
    "case and white space": recased,
    "punctuation": repunctuated,
    "other LaTeX": retypeset,
    "in instructions": instructed,
    "options added": with_options,
    "other questions before and behind": with_more_text,
    "sentences reordered": reordered,
    "reworded by synonyms": reworded,
    "one word in ten changed": one_word_in(10),
    "one word in four changed": one_word_in(4),
    "first three quarters": beginning(0.75),
    "first half": beginning(0.5),
    "other numbers": renumbered,
}


if __name__ == "__main__":
    main()
