"""What another program made of the rows: its tokens, compared with those that are meant.

Such programs render, cut and pack rows by rules of their own. A row is as meant if the student will
be asked with its prompt, and learns exactly what follows, up to the token that ends its turn. All
rows are compared, whatever their order.

Not covered: what the program then does with these tokens.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import polars as pl

from stillroom.errors import ModelError
from stillroom.models.local.checkpoint import Speech
from stillroom.train.learnt import Learnt, Speaks, learnt_rows
from stillroom.train.trainer import Job, TrainingFailed

STRAY = 0.01
"""Share of rows that a program may tell otherwise; they are counted, and more are refused."""

_IGNORED = -100
_SHOWN = 60  # characters of a text in a message


class Retold(NamedTuple):
    """The rows as a program tells them.

    Attributes:
        rows: Rows that it learns from.
        lines: What it calls rows: as many, or fewer where it packs.
        truncated: Rows that it cut to fit.
        skipped: Rows that it left out.
        otherwise: Rows that it tells otherwise than meant.
        tokens: Tokens of all rows.
        learnt: Of these, tokens that are learnt.
    """

    rows: int
    lines: int
    truncated: int
    skipped: int
    otherwise: int
    tokens: int
    learnt: int


class _Row(NamedTuple):
    tokens: list[int]
    start: int  # the first token that is learnt
    whole: bool  # whether all from there on is learnt


def read_retold(files: Iterable[Path], job: Job, max_length: int, program: str) -> Retold:
    """Compare a program's tokens with the rows.

    Args:
        files: Its tokens: Arrow files with ``input_ids``, ``labels`` and, where rows share a line,
            ``attention_mask`` with the number of the row, from 1.
        job: Rows and base model.
        max_length: Tokens at which rows are cut.
        program: Its name, for messages.

    Raises:
        TrainingFailed: If more than `STRAY` of the rows are told otherwise, or the base model has
            no chat template that fits.
    """
    try:
        speech = Speech(job.base)
    except ModelError as error:
        raise TrainingFailed(str(error)) from None
    meant: Counter[bytes] = Counter()
    rows = cut = 0
    for learnt in learnt_rows(speech, job):
        rows += 1
        cut += len(learnt.tokens) > max_length
        meant[_digest(_meant(learnt, max_length, speech.end))] += 1
    lines = tokens = told = learning = 0
    strays: list[_Row] = []
    for line in _lines(files):
        lines += 1
        for row in _rows(line, speech):
            told += 1
            tokens += len(row.tokens)
            learning += len(row.tokens) - row.start
            key = _digest(row)
            if meant[key] > 0:
                meant[key] -= 1
            else:
                strays.append(row)
            if len(strays) > STRAY * rows + cut + 1000:
                break  # a program that tells nearly all otherwise need not be read to its end
    if not told:
        raise TrainingFailed(f"{program} made no tokens of {rows} rows; its log says why")
    missed = _still(meant, speech, job, max_length)
    otherwise = _otherwise(strays, missed, speech, max_length)
    if len(otherwise) > STRAY * rows:
        raise TrainingFailed(_difference(otherwise[0], missed, speech, program, len(otherwise)))
    return Retold(
        rows=told,
        lines=lines,
        truncated=min(cut, told),
        skipped=max(0, rows - told),
        otherwise=len(otherwise),
        tokens=tokens,
        learnt=learning,
    )


def _meant(learnt: Learnt, max_length: int, end: int) -> _Row:
    tokens = learnt.tokens[:max_length]
    return _Row(_until(tokens, learnt.start, end), learnt.start, whole=True)


def _until(tokens: list[int], start: int, end: int) -> list[int]:
    """Leave out what a template puts after the token that ends the turn, such as a line break."""
    for at in range(len(tokens) - 1, max(start, len(tokens) - 5), -1):
        if tokens[at] == end:
            return tokens[: at + 1]
    return tokens


def _digest(row: _Row) -> bytes:
    numbers = array("q", [row.start, row.whole, *row.tokens])
    return hashlib.blake2b(numbers.tobytes(), digest_size=16).digest()


def _lines(files: Iterable[Path]) -> Iterator[tuple[list[int], list[int], list[int]]]:
    columns = ["input_ids", "labels", "attention_mask"]
    for file in files:
        yield from pl.read_ipc_stream(file, columns=columns).select(columns).iter_rows()


def _rows(line: tuple[list[int], list[int], list[int]], speech: Speaks) -> Iterator[_Row]:
    tokens, labels, mask = line
    begin = 0
    for number, group in groupby(mask):
        stop = begin + sum(1 for _ in group)
        if number:
            yield _row(tokens[begin:stop], labels[begin:stop], speech)
        begin = stop


def _row(tokens: list[int], labels: list[int], speech: Speaks) -> _Row:
    start = next((at for at, label in enumerate(labels) if label != _IGNORED), len(tokens))
    kept = _until(tokens, start, speech.end)
    whole = labels[start : len(kept)] == kept[start:]
    after = [token for token in labels[len(kept) :] if token != _IGNORED]
    return _Row(kept, start, whole and not speech.decoded(after).strip())


def _still(meant: Counter[bytes], speech: Speech, job: Job, max_length: int) -> list[Learnt]:
    """Return the rows that the program did not tell as meant."""
    left = +meant
    found = []
    if left:
        for learnt in learnt_rows(speech, job):
            key = _digest(_meant(learnt, max_length, speech.end))
            if left[key] > 0:
                left[key] -= 1
                found.append(learnt)
    return found


def _otherwise(
    strays: Sequence[_Row], missed: Sequence[Learnt], speech: Speech, max_length: int
) -> list[_Row]:
    """Return the rows that differ in more than where a text is divided into tokens, or is cut."""
    texts = Counter(
        _sense(_meant(one, max_length, speech.end), speech)
        for one in missed
        if len(one.tokens) <= max_length
    )
    cut = sum(len(one.tokens) > max_length for one in missed)
    differ = []
    for row in strays:
        sense = _sense(row, speech)
        if row.whole and texts[sense] > 0:
            texts[sense] -= 1
        elif cut and len(row.tokens) >= max_length - 1:
            cut -= 1  # some programs cut a long question too
        else:
            differ.append(row)
    return differ


def _texts(row: _Row, speech: Speech) -> tuple[str, str]:
    return speech.decoded(row.tokens[: row.start]), speech.decoded(row.tokens[row.start :])


def _sense(row: _Row, speech: Speech) -> tuple[str, str, tuple[int, ...]]:
    """Return what a row says; a tag that is spelt letter by letter is another thing."""
    return *_texts(row, speech), tuple(token for token in row.tokens if token in speech.added)


def _difference(
    row: _Row, missed: Sequence[Learnt], speech: Speech, program: str, count: int
) -> str:
    asked, said = _texts(row, speech)
    wanted = [_texts(_meant(one, len(one.tokens), speech.end), speech) for one in missed]
    same = [one for one in wanted if one[0] == asked]
    other = [one for one in wanted if one[1].startswith(said)]
    if same:
        ours, theirs = _apart(same[0][1], said)
        what = f"learn {theirs!r} where the row says {ours!r}"
        if ours == theirs:
            what = f"spell tags letter by letter in {said[:_SHOWN]!r}"
        if not row.whole:
            what = f"not learn all of {said[:_SHOWN]!r}"
    elif wanted:
        ours, theirs = _apart((other or wanted)[0][0], asked)
        what = f"ask {theirs!r} where the base model's chat template asks {ours!r}"
    else:
        what = f"learn {said[:_SHOWN]!r}, which no row says"
    return (
        f"{program} would {what}, and tell {count} rows otherwise than meant in all. Name the "
        "template that the base model has, or use trainer trl"
    )


def _apart(ours: str, theirs: str) -> tuple[str, str]:
    """Show two texts from shortly before they part."""
    least = min(len(ours), len(theirs))
    at = next((i for i in range(least) if ours[i] != theirs[i]), least)
    begin = max(0, at - 20)
    return ours[begin : begin + _SHOWN], theirs[begin : begin + _SHOWN]
