"""Questions for benches of dedup and decontamination: real ones, and many more that are made.

What is made follows the real ones of the folder named by STILLROOM_DATA: word for word a chain of
order 2 trained on them, templates with other numbers, near copies, exact copies, and planted copies
of benchmark items. Without that folder the words are drawn by Zipf's law. The same arguments give
the same texts.
"""

import io
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

SHARES = {"template": 0.10, "near": 0.10, "copy": 0.08, "planted": 0.01}
"""Of all questions; the rest is real at first, up to `REAL` of all, and made word by word."""

REAL = 0.05
NUMBER = re.compile(r"\d+")


def questions(n: int, *, seed: int = 1) -> list[str]:
    """Return n questions in random order; mean length as of real ones, about 300 characters."""
    rng = random.Random(f"{seed}/{n}")
    real = stored("fixtures") or [" ".join(zipf(rng, rng.randint(15, 90))) for _ in range(2_000)]
    items = benchmark() or real
    word_by_word = chain(real, rng)
    made: list[str] = rng.sample(real, min(len(real), int(n * REAL)))
    makers: dict[str, Callable[[], str]] = {
        "template": lambda: renumbered(rng.choice(real), rng),
        "near": lambda: edited(rng.choice(made), rng, rng.uniform(0.01, 0.20)),
        "copy": lambda: respaced(rng.choice(made), rng),
        "planted": lambda: edited(rng.choice(items), rng, rng.uniform(0.0, 0.30)),
    }
    made += [word_by_word() for _ in range(n - len(made) - int(n * sum(SHARES.values())))]
    for name, share in SHARES.items():
        made += [makers[name]() for _ in range(int(n * share))]
    made = made[:n] + [word_by_word() for _ in range(n - len(made))]
    rng.shuffle(made)
    return made


def benchmark() -> list[str]:
    """Return the real benchmark items, each once, in a fixed order; none without the folder."""
    return sorted(set(stored("benchmarks")))


def stored(folder: str) -> list[str]:
    """Return the questions of a folder of STILLROOM_DATA; none if it is absent."""
    root = os.environ.get("STILLROOM_DATA")
    found: list[str] = []
    for path in sorted(Path(root or os.devnull, folder).glob("*.jsonl.zst")):
        with path.open("rb") as file:
            lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
            found += [q for line in lines if (q := json.loads(line)["question"])]
    return found


def zipf(rng: random.Random, n: int) -> Iterator[str]:
    """Draw words of 1 to 9 letters; the k-th most frequent one comes with probability ~ 1/k."""
    for _ in range(n):
        rank = int(20_000 ** rng.random())
        word = random.Random(rank)
        yield "".join(
            word.choices("etaoinshrdlucmfwyp", k=word.randint(1, 3 + rank.bit_length() // 2))
        )


def chain(texts: list[str], rng: random.Random) -> Callable[[], str]:
    """Learn which word follows two others; return a function that makes a text of it."""
    after: dict[tuple[str, str], list[str]] = {}
    for text in texts:
        words = ["", "", *text.split(), ""]
        for a, b, c in zip(words, words[1:], words[2:], strict=False):
            after.setdefault((a, b), []).append(c)

    def make() -> str:
        wanted, words = len(rng.choice(texts)), ["", ""]
        length = 0
        while length < wanted:
            word = rng.choice(after[words[-2], words[-1]])
            if not word:  # the end of a text: begin another one
                words += ["", ""]
                continue
            words.append(word)
            length += len(word) + 1
        return " ".join(filter(None, words))

    return make


def renumbered(text: str, rng: random.Random) -> str:
    """Put other numbers of as many digits into a text."""
    return NUMBER.sub(lambda found: str(rng.randint(1, 10 ** min(9, len(found[0])))), text)


def edited(text: str, rng: random.Random, share: float) -> str:
    """Change a share of a text's words: one goes, is doubled, or gives way to another."""
    words = text.split()
    for _ in range(max(1, round(share * len(words)))):
        place = rng.randrange(len(words)) if words else 0
        words[place : place + 1] = rng.choice(
            [[], words[place : place + 1] * 2, [rng.choice(words or ["?"])]]
        )
    return " ".join(words)


def respaced(text: str, rng: random.Random) -> str:
    """Copy a text with other case or other white space, or as it is."""
    return rng.choice([text, text.upper(), text.lower(), text.replace(" ", "  "), f" {text}\n"])
