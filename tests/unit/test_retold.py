"""Tokens of other programs, read back and compared with what rows say."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from stillroom.models.local.checkpoint import Speech
from stillroom.train.learnt import learnt_tokens
from stillroom.train.retold import read_retold
from stillroom.train.trainer import Example, Job, TrainingFailed
from tiny_checkpoints import END, TEMPLATE, write_checkpoint

EMBEDDED = Path(__file__).parents[2] / "src" / "stillroom" / "models" / "embedded"
ROWS = [
    Example(f"What is {i}+{i}?", f"{i}+{i}={2 * i}" if i % 3 else None, f"\\boxed{{{2 * i}}}")
    for i in range(12)
]
LONG = Example("Long?", "t " * 200, "end")
CUT = 128


@pytest.fixture
def job(tmp_path):
    return with_rows(Job(write_checkpoint(tmp_path / "base"), tmp_path / "rows", {}, 0), ROWS)


def with_rows(job, rows):
    job.rows.mkdir(exist_ok=True)
    frame = pl.DataFrame(rows, schema=["question", "reasoning", "answer"], orient="row")
    frame.write_parquet(job.rows / "00000.parquet")
    return job


def told(job, rows=ROWS, most=CUT):
    """Tokens, labels and mask of each row, as a faithful program has them."""
    lines = []
    for learnt in learnt_tokens(Speech(job.base), rows):
        tokens = learnt.tokens[:most]
        labels = [-100] * learnt.start + tokens[learnt.start :]
        lines.append((tokens, labels, [1] * len(tokens)))
    return lines


def packed(rows, size):
    """Lines of several rows, numbered from 1 in the mask, and padded."""
    lines = []
    for begin in range(0, len(rows), size):
        line = [[], [], []]
        for number, row in enumerate(rows[begin : begin + size], 1):
            for part, more in zip(line, (row[0], row[1], [number] * len(row[0])), strict=True):
                part.extend(more)
        for part, padding in zip(line, (0, -100, 0), strict=True):
            part.extend([padding] * 7)
        lines.append(tuple(line))
    return lines


def read(job, lines):
    file = job.rows.parent / "data-00000-of-00001.arrow"
    columns = ["input_ids", "labels", "attention_mask"]
    # Programs write other columns too, some of nothing but nulls.
    frame = pl.DataFrame(lines, schema=dict.fromkeys(columns, pl.List(pl.Int64)), orient="row")
    frame.with_columns(images=None).write_ipc_stream(file)
    return read_retold([file], job, CUT, "the program")


def test_rows_in_any_order_or_packed_are_counted(job):
    rows = told(job)
    found = read(job, rows[::-1])
    assert (found.rows, found.lines, found.truncated, found.skipped, found.otherwise) == (
        12,
        12,
        0,
        0,
        0,
    )
    assert found.tokens == sum(len(row[0]) for row in rows)
    assert found.learnt == sum(label != -100 for row in rows for label in row[1])
    together = read(job, packed(rows, 5))
    assert together == found._replace(lines=3)


def test_what_a_template_puts_after_the_end_may_be_learnt_or_not(job, tmp_path):
    blank = TEMPLATE.replace("<|im_end|>\n", "<|im_end|>{{ '\\n' }}")
    base = write_checkpoint(tmp_path / "other", template=blank)
    job = replace(job, base=base)
    rows = told(job)
    assert rows[0][0][-2:] == [END, 198]
    quiet = [(tokens, [*labels[:-1], -100], mask) for tokens, labels, mask in rows]
    assert read(job, rows) == read(job, quiet)


def test_long_rows_are_cut_and_counted_wherever_a_program_cuts(job):
    rows = [*ROWS, LONG, Example("q " * 300, "t", "a")]
    with_rows(job, rows)
    lines = told(job, rows[:13])
    # LLaMA-Factory, packing, cuts a token earlier; and it cuts long questions.
    shorter = lines[12][0][: CUT - 1]
    lines[12] = (shorter, lines[12][1][: CUT - 1], [1] * len(shorter))
    asked = told(job, rows[13:], most=10_000)[0][0][: CUT - 3]
    cut = [*asked, 64, 258, 258]
    lines.append((cut, [-100] * len(asked) + cut[-3:], [1] * CUT))
    found = read(job, lines)
    assert (found.rows, found.truncated, found.skipped, found.otherwise) == (14, 2, 0, 0)


def test_rows_that_a_program_leaves_out_are_counted(job):
    assert read(job, told(job)[2:]).skipped == 2
    with pytest.raises(TrainingFailed, match="the program made no tokens of 12 rows; its log says"):
        read(job, [])


def without_reasoning(row):
    tokens, labels, mask = row
    drop = [i for i, token in enumerate(tokens) if token in (259, 260)]
    keep = [i for i in range(len(tokens)) if i not in drop]
    return tuple([part[i] for i in keep] for part in (tokens, labels, mask))


def with_system(row):
    tokens, labels, mask = row
    more = [257, *b"system", 258]
    return [*more, *tokens], [-100] * len(more) + labels, [1] * len(more) + mask


def learns_the_question(row):
    return row[0], row[0], row[2]


def without_end(row):
    return tuple(part[:-1] for part in row)


def with_a_gap(row):
    labels = list(row[1])
    labels[-3] = -100
    return row[0], labels, row[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_reasoning, "the program would learn .* where the row says .*<think>"),
        (with_system, "would ask .* where the base model's chat template asks '<.im_start.>user"),
        (learns_the_question, "would ask '' where the base model's chat template asks"),
        (without_end, "would learn .* where the row says .*<.im_end.>"),
        (with_a_gap, "would not learn all of "),
    ],
)
def test_a_program_that_tells_rows_otherwise_is_refused(job, change, words):
    with pytest.raises(TrainingFailed, match=words) as refusal:
        read(job, [change(row) for row in told(job)])
    assert "rows otherwise than meant in all" in str(refusal.value)


def test_a_few_rows_told_otherwise_are_counted(job):
    many = ROWS * 20
    with_rows(job, many)
    lines = told(job, many)
    lines[7] = with_a_gap(lines[7])
    assert read(job, lines).otherwise == 1
    lines[8] = lines[9] = with_a_gap(lines[8])
    with pytest.raises(TrainingFailed, match="and tell 3 rows otherwise"):
        read(job, lines)


def respelt(row, speech, wanted):
    """One token of a kind in a row, spelt by several."""
    tokens, labels, mask = row
    at = next(i for i, token in enumerate(tokens) if labels[i] != -100 and wanted(token))
    text = speech.decoded([tokens[at]])
    pieces = [piece for letter in text for piece in speech.encoded([letter])[0]]
    assert speech.decoded(pieces) == text
    return (
        [*tokens[:at], *pieces, *tokens[at + 1 :]],
        [*labels[:at], *pieces, *labels[at + 1 :]],
        [*mask, *([1] * (len(pieces) - 1))],
    )


def test_a_text_divided_otherwise_into_tokens_is_the_same_but_for_tags(job):
    job = replace(job, base=EMBEDDED / "base-1")
    speech = Speech(job.base)
    lines = told(job)
    parted = lambda token: token not in speech.added and len(speech.decoded([token])) > 1  # noqa: E731
    lines[1] = respelt(lines[1], speech, parted)
    assert read(job, lines).otherwise == 0
    tag = speech.encoded(["<think>"])[0][0]
    lines[1] = respelt(told(job)[1], speech, lambda token: token == tag)
    with pytest.raises(TrainingFailed, match="would spell tags letter by letter in '<think>"):
        read(job, lines)
