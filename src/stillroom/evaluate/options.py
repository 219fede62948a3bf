"""Options of multiple-choice items: their letters, and where the right one stands.

Where a benchmark keeps the right answer apart from the wrong ones, options are ordered by hashes of
the item's own texts: the order is the same on every machine and in any order of rows, and differs
between items. The right answers are spread evenly: items stand in the order of their hashes, and
take A, B, C, D in turn. So a student that always says one letter is right on a quarter of the
items, whichever letter it is.

Trap: a generator that is seeded anew for each item gives every item the same order (and the right
answer the same letter); one that is not seeded gives another order in every run.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stillroom.rows import content_id
from stillroom.verifiers.choice import LETTERS


@dataclass(frozen=True)
class Choice:
    """A multiple-choice item.

    Attributes:
        question: Its text, without the options.
        right: The right option.
        wrong: The others.
    """

    question: str
    right: str
    wrong: tuple[str, ...]

    @property
    def name(self) -> str:
        """Names the item by its content, whatever the order of its wrong options."""
        return content_id(self.question, self.right, *sorted(self.wrong))


def ordered(choices: Sequence[Choice]) -> list[tuple[tuple[str, ...], str]]:
    """Order the options of all items of a benchmark.

    Returns:
        For each item its options, and the letter of the right one.
    """
    by_size: Mapping[int, list[int]] = defaultdict(list)
    for place in sorted(range(len(choices)), key=lambda place: choices[place].name):
        by_size[len(choices[place].wrong)].append(place)
    found: dict[int, tuple[tuple[str, ...], str]] = {}
    for n_wrong, places in by_size.items():
        for turn, place in enumerate(places):
            choice, letter = choices[place], turn % (n_wrong + 1)
            options = sorted(choice.wrong, key=lambda text: content_id(choice.name, text))
            options.insert(letter, choice.right)
            found[place] = tuple(options), LETTERS[letter]
    return [found[place] for place in range(len(choices))]


def worded(question: str, options: Sequence[str]) -> str:
    """Put lettered options below a question."""
    lines = [f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False)]
    return "\n".join([f"{question}\n", "Options:", *lines])
