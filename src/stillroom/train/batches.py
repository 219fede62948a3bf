"""What is learnt at each step: rows on lines of one length, and the tensors of such lines.

A `Draw` says which rows share a step, and costs next to nothing. `lay_out` makes the tensors, for
one student or for many at once, on the device where the rows lie.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor

BUCKETS = (64, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024)
"""Line lengths in tokens. Few, because each new shape makes the matrix library plan anew."""

IGNORED = -100
"""The target where nothing is learnt."""

_UNSEEN = -1e4  # finite, so that a padded position that sees nothing does not become NaN
_WINDOW = 2048  # rows that are sorted into batches together


class TokenRow(NamedTuple):
    """One training example."""

    tokens: Sequence[int]
    start: int
    """First position that counts: tokens[start:] are the ones to learn."""

    @property
    def size(self) -> int:
        """Positions on a line: the last token is only a target."""
        return len(self.tokens) - 1


class Draw(NamedTuple):
    """The rows of one step of one student."""

    lines: Sequence[Sequence[TokenRow]]
    length: int
    """Of each line, in tokens."""

    @property
    def rows(self) -> list[TokenRow]:
        """All of them, line after line."""
        return [row for line in self.lines for row in line]

    def places(self, width: int) -> list[int]:
        """Say where each row begins, counted through all lines, if lines had another width.

        Args:
            width: At least the length; wider lines hold as many of these as fit.
        """
        found, each = [], width // self.length
        for number, line in enumerate(self.lines):
            place = number // each * width + number % each * self.length
            for row in line:
                found.append(place)
                place += row.size
        return found


def draws(rows: Iterable[TokenRow], tokens_per_step: int, seed: int) -> Iterator[Draw]:
    """Yield draws for ever (sequence) or until the rows end (iterator).

    Raises:
        ValueError: If there are no rows, or one is longer than the largest bucket.
    """
    rng = random.Random(f"batches/{seed}")
    if isinstance(rows, Sequence):
        if not rows:
            raise ValueError("no rows to train on")
        windows = _epochs(rows, rng)
    else:
        windows = _windows(rows)
    waiting: dict[int, list[list[TokenRow]]] = {}
    for window in windows:
        lines = _pack(window)
        rng.shuffle(lines)
        for length, line in lines:
            held = waiting.setdefault(length, [])
            held.append(line)
            if len(held) == lines_of(length, tokens_per_step):
                yield Draw(waiting.pop(length), length)


def lines_of(length: int, tokens_per_step: int) -> int:
    """Count the lines of a length that make a step."""
    return max(1, tokens_per_step // length)


def bucket_of(row: TokenRow) -> int:
    """Return the shortest length of line that holds a row.

    Raises:
        ValueError: If none does.
    """
    for bucket in BUCKETS:
        if row.size <= bucket:
            return bucket
    raise ValueError(f"a row has {row.size + 1} tokens; at most {BUCKETS[-1] + 1} fit")


def _epochs(rows: Sequence[TokenRow], rng: random.Random) -> Iterator[list[TokenRow]]:
    """Go through rows for ever; a window across epochs would hold some rows often, others never."""
    while True:
        yield from _windows(rng.sample(rows, len(rows)))


def _windows(rows: Iterable[TokenRow]) -> Iterator[list[TokenRow]]:
    stream = iter(rows)
    while window := list(islice(stream, _WINDOW)):
        yield window


def _pack(rows: list[TokenRow]) -> list[tuple[int, list[TokenRow]]]:
    """Put rows on lines: each takes the smallest bucket, and short rows fill what is left."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].tokens), i))
    short = [i for i in reversed(order) if len(rows[i].tokens) < BUCKETS[0]]
    used: set[int] = set()
    lines = []
    for i in order:
        if i in used:
            continue
        used.add(i)
        length, size = bucket_of(rows[i]), rows[i].size
        line = [rows[i]]
        while short:
            if short[-1] in used:
                short.pop()
                continue
            more = rows[short[-1]].size
            if size + more > length:
                break
            used.add(short[-1])
            line.append(rows[short.pop()])
            size += more
        lines.append((length, line))
    return lines


class Text(NamedTuple):
    """Rows end to end, on one device."""

    tokens: Tensor
    """(tokens,), whole numbers of 32 bits."""
    begins: Tensor
    """(rows,), where each begins."""
    sizes: Tensor
    """(rows,), see `TokenRow.size`."""
    firsts: Tensor
    """(rows,), the first position of each whose target is learnt."""


def text_of(rows: Sequence[TokenRow], device: torch.device | str = "cpu") -> Text:
    """Put rows end to end."""
    tokens = array("i", chain.from_iterable(row.tokens for row in rows))
    tokens.append(0)  # what follows the last token of all is read, and not learnt
    sizes = torch.tensor([row.size for row in rows])
    return Text(
        torch.tensor(tokens, dtype=torch.int32).to(device),
        (sizes + 1).cumsum(0).sub_(sizes + 1).to(device),
        sizes.to(device),
        torch.tensor([max(row.start - 1, 0) for row in rows]).to(device),
    )


class Batch(NamedTuple):
    """Lines to learn from, each tensor with the students first."""

    tokens: Tensor
    """(students, lines, length), as all but the bias; 0 where there is no row."""
    positions: Tensor
    """Counted from 0 in each row."""
    targets: Tensor
    """Next tokens; IGNORED where nothing is learnt."""
    bias: Tensor
    """(students, lines, 1, length, length): 0 where a position is seen, very low elsewhere."""


def lay_out(text: Text, rows: Tensor, places: Tensor, lines: int, length: int) -> Batch:
    """Put rows on lines, so that no row sees another.

    Args:
        text: Where the rows are.
        rows: (students, rows), numbers in the text.
        places: (students, rows), where each begins, counted through all lines; the first at 0,
            the others in order. What begins at the end of the lines is left out.
        lines: Of each student.
        length: Of a line.
    """
    students = len(rows)
    grid = torch.arange(lines * length, device=rows.device).repeat(students, 1)
    slot = torch.searchsorted(places, grid, right=True).sub_(1)
    row = rows.gather(1, slot)
    position = grid - places.gather(1, slot)
    filled = position < text.sizes[row]
    position = position.where(filled, 0)
    at = text.begins[row] + position
    learnt = filled & (position >= text.firsts[row])
    shape = (students, lines, length)
    segment = slot.where(filled, -1).view(shape)
    seen = (segment[..., :, None] == segment[..., None, :]).tril_()
    return Batch(
        text.tokens[at].where(filled, 0).long().view(shape),
        position.view(shape),
        text.tokens[at + 1].where(learnt, IGNORED).long().view(shape),
        torch.where(seen, 0.0, _UNSEEN)[:, :, None],
    )


def collate(draw: Draw) -> Batch:
    """Make the batch of one student."""
    rows = draw.rows
    return lay_out(
        text_of(rows),
        torch.arange(len(rows))[None],
        torch.tensor([draw.places(draw.length)]),
        len(draw.lines),
        draw.length,
    )


def causal_bias(length: int) -> Tensor:
    """Return (1, 1, length, length): 0 where a position is seen, and very low where it is not."""
    return torch.full((1, 1, length, length), _UNSEEN).triu(1)
