"""The dataset card: what the dataset is, how it was made, and how right its teacher was.

Text that comes from data (sources, licences, reasons, notes, names of columns) is shown and never
obeyed: `code` and `prose` leave nothing in it that Markdown, HTML or a table would act on. What the
recipe's author writes as ``description`` is Markdown, as they meant it.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl
import yaml

from stillroom.steps.export.facts import Facts, Tally, Teacher
from stillroom.steps.export.form import Export
from stillroom.steps.export.licences import hub_metadata, hub_name, objection

VERDICTS = ("correct", "incorrect", "unparsed", "no_reference", "error")
TAGS = ("reasoning", "distillation", "stillroom")
SHOWN = 60
"""Characters of a name that a table shows."""
REASONS = 5
"""Reasons for drops that a table names; the rest are summed up."""

SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
)  # fmt: skip
"""Names of the hub for numbers of rows below a limit."""

MEANINGS: Mapping[str, str] = {
    "id": "names the row by its content; the same in every run",
    "question_id": "names the question; all draws of one question share it",
    "domain": "part of the recipe that made the row",
    "source": "where the question comes from",
    "licence": "licence of the question; null if the source does not say",
    "row": "the question's place in its source, from 0",
    "question": "the problem",
    "teacher": "model that answered",
    "draw": "which sample of the teacher, from 0",
    "finish_reason": "`stop`, or `length` if the answer was cut off",
    "prompt_tokens": "tokens of the prompt, by the teacher's count",
    "completion_tokens": "tokens of the answer with its reasoning, by the teacher's count",
    "reference": "the known answer; null if there is none",
    "verdict": "comparison with the reference; see [Verdicts](#verdicts)",
    "extracted": "final answer that was found in the text",
    "rule": "how it was found",
    "verifier": "program and version that decided",
    "verdict_detail": "why a verdict is not a plain yes or no, or what else was said",
    "reasoning": "what the teacher thought before it answered",
    "conversations": "the conversation: turns of `from` and `value`",
    "messages": "the conversation: turns of `role` and `content`",
    "prompt": "what was asked: turns of `role` and `content`",
    "completion": "the answer: a turn of `role` and `content`",
    "chosen": "the preferred answer: a turn of `role` and `content`",
    "completions": "the steps of the answer, in order: its paragraphs",
    "labels": "whether each step is right",
    "rejected": "the other answer: a turn of `role` and `content`",
    "problem": "the question",
    "deepseek_reasoning": "what the teacher thought, whichever model it was",
    "deepseek_solution": "what the teacher answered, whichever model it was",
    "ground_truth_solution": "the known answer",
    "answer": "the known answer",
    "expected_answer": "the known answer",
}


def card(facts: Facts, export: Export) -> str:
    """Write the card, YAML front matter included."""
    parts = [
        f"# {prose(export.title or facts.name)}",
        _opening(facts),
        _glance(facts),
        _loading(facts),
        _steps(facts),
        _verdicts(facts),
        _lengths(facts),
        _columns(facts),
        _licences(facts),
        _notes(facts),
        _reproduce(facts),
    ]
    return _front_matter(facts, export) + "\n" + "\n\n".join(part for part in parts if part) + "\n"


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Bound a share with 95% confidence.

    Args:
        successes: 0 to n.
        n: Trials; above 0.

    Returns:
        Lower and upper end, 0 to 1.

    Source: Wilson 1927, JASA 22:209-212.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    z = 1.959964
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)


def code(text: str | None, limit: int = SHOWN) -> str:
    """Show data inside a line or a table cell, as code.

    Backticks and bars, the only characters that could end a code span or a cell, are shown as
    characters that look like them; the record holds the exact text.

    >>> code("a|b`c` <script>")
    "`a¦b'c' <script>`"
    """
    if text is None:
        return "*none*"
    line = _one_line(text).replace("`", "'").replace("|", "¦").replace("\\", "⧵")
    if len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    return f"`{line}`" if line else "*empty*"


def prose(text: str) -> str:
    r"""Show a sentence that may hold data, as text.

    >>> prose("see *this* <b>")
    'see \\*this\\* &lt;b&gt;'
    """
    line = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_{}\[\]()#!|~$^=])", r"\\\1", line)
    line = re.sub(r"^(\d*)([-+.])", r"\1\\\2", line)  # the start of a list
    # A word joiner keeps addresses from becoming links.
    return re.sub(r"(://|@|www\.)", "\u2060\\1\u2060", line)


def _one_line(text: str) -> str:
    """Take out what does not show: controls, marks that turn the direction of text, line ends."""
    kept = (" " if c.isspace() else c for c in text)
    shown = (c for c in kept if c == " " or unicodedata.category(c)[0] not in "CZ")
    return " ".join("".join(shown).split())


def _front_matter(facts: Facts, export: Export) -> str:
    rows = facts.rows.rows
    licences = {licence for (licence,) in facts.rows.by("licence")}
    chosen = {export.licence} if export.licence else licences
    content: dict[str, Any] = {
        "pretty_name": _one_line(export.title or facts.name),
        **hub_metadata(chosen),
        **({"language": list(export.language)} if export.language else {}),
        "size_categories": [next((n for limit, n in SIZES if rows < limit), "n>1B")],
        "task_categories": ["text-generation"],
        "tags": list(TAGS),
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": f"data/train-*.{export.suffix}"}],
            }
        ],
        # Without it readers would take the types of the file, where text is `large_string`, and
        # could not put the rows together with those of another dataset.
        "dataset_info": {
            "features": [_feature(name, dtype) for name, dtype in facts.columns.items()],
            "splits": [{"name": "train", "num_bytes": facts.text_bytes, "num_examples": rows}],
        },
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{text}---\n"


def _feature(name: str, dtype: pl.DataType) -> dict[str, Any]:
    """Describe a column as `datasets` does."""
    if isinstance(dtype, pl.Struct):
        return {"name": name, "struct": _fields(dtype)}
    if isinstance(dtype, pl.List):
        inner = _instance(dtype.inner)
        listed = _fields(inner) if isinstance(inner, pl.Struct) else _feature("", inner)["dtype"]
        return {"name": name, "list": listed}
    names = {pl.String(): "string", pl.Boolean(): "bool", pl.Null(): "null", pl.Date(): "date32"}
    return {"name": name, "dtype": names.get(dtype) or str(dtype).lower()}


def _fields(dtype: pl.Struct) -> list[dict[str, Any]]:
    return [_feature(field.name, _instance(field.dtype)) for field in dtype.fields]


def _instance(dtype: Any) -> pl.DataType:
    found: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return found


def _opening(facts: Facts) -> str:
    counts = _counts(facts)
    return f"{facts.description.strip()}\n\n{counts}" if facts.description else counts


def _counts(facts: Facts) -> str:
    n, questions = facts.rows.rows, facts.rows.questions
    domains = _listed([code(d) for d in facts.domains])
    place = f" in {domains}" if domains else ""
    if facts.kind == "questions":
        return f"{_n(n, 'question')}{place}."
    teachers = _listed([code(name) for name in dict.fromkeys(t.name for t in facts.teachers)])
    return (
        f"{_n(n, 'answer')} to {_n(questions, 'question')}{place}, given by {teachers}, "
        "with the reasoning that led to them."
    )


def _glance(facts: Facts) -> str:
    rows = [["rows", _split(facts.rows, "domain", facts)]]
    if facts.kind == "answers":
        per = facts.rows.rows / max(1, facts.rows.questions)
        rows.append(["questions", f"{facts.rows.questions:,}, {per:.3g} answers each"])
        rows += [[f"teacher{_of(t, facts)}", _teacher(t)] for t in facts.teachers]
        taught = {teacher.name for teacher in facts.teachers}
        rows += [
            [code(role), code(spec.name)]
            for role, spec in facts.models.items()
            if spec.name not in taught
        ]
        verified = sum(n for (v,), n in facts.drawn.by("verdict").items() if v)
        if verified:
            rate = _rate(_verdict_counts(facts.drawn.by("verdict")))
            rows.append(["teacher right", f"{rate} of the answers that could be decided"])
        reasons = {r: n for (r,), n in facts.rows.by("finish_reason").items() if r is not None}
        if reasons:
            cut = reasons.get("length", 0)
            rows.append(["cut off", f"{_percent(cut, facts.rows.rows)} of the rows ({cut:,})"])
        lengths = facts.rows.lengths()
        if lengths.total:
            p50, p95 = lengths.quantile(0.5), lengths.quantile(0.95)
            words = f"median {p50:,}, 95% up to {p95:,}, longest {lengths.longest:,}"
            rows.append(["tokens per answer", words])
    rows.append(["sources", f"{len(facts.rows.by('source')):,}; see [Licences](#licences)"])
    return _table(["", ""], rows)


def _of(teacher: Teacher, facts: Facts) -> str:
    if len(facts.teachers) == 1:
        return ""
    return f" of {_listed([code(d) for d in teacher.domains])}"


def _teacher(teacher: Teacher) -> str:
    settings = [f"{name} {value:,}" for name, value in teacher.sampling.items()]
    words = ", ".join(settings) or "sampling left to the server"
    draws = f"; {_draws(teacher.draws)} per question" if teacher.draws else ""
    system = "; with a system prompt" if teacher.system else "; no system prompt"
    return f"{code(teacher.name)}: {words}{draws}{system}"


def _draws(draws: int | Mapping[str, Any]) -> str:
    if isinstance(draws, int):
        return _n(draws, "draw")
    if "column" in draws:
        return f"as many draws as {code(draws['column'])} says"
    until = draws["until"]
    goal = "one is correct" if until == "correct" else (
        f"the pass rate is known within {until['within']:g}"
    )  # fmt: skip
    return f"draws until {goal}, {draws['at_most']:,} at most,"


def _split(tally: Tally, column: str, facts: Facts) -> str:
    counts = {key: n for (key,), n in tally.by(column).items()}
    if len(counts) < 2:
        return f"{tally.rows:,}"
    return f"{tally.rows:,}: " + ", ".join(f"{code(key)} {n:,}" for key, n in counts.items())


def _loading(facts: Facts) -> str:
    has_verdicts = any(v for (v,) in facts.rows.by("verdict"))
    lines = [
        "from datasets import load_dataset",
        "",
        '# The path of this folder, or "owner/name" on the hub.',
        'rows = load_dataset("path/to/this/folder", split="train")',
    ]
    if has_verdicts:
        lines.append('correct = rows.filter(lambda row: row["verdict"] == "correct")')
    return "## Load it\n\n```python\n" + "\n".join(lines) + "\n```"


def _steps(facts: Facts) -> str:
    rows = [
        [
            code(stage.path),
            f"{stage.manifest.rows_in:,}",
            f"{stage.manifest.rows_out:,}",
            _dropped(stage.manifest.drops),
        ]
        for stage in facts.story
    ]
    if not rows:
        return ""
    words = "Every row that went in came out, or was dropped for a reason that is counted here."
    if any(stage.manifest.rows_out > stage.manifest.rows_in for stage in facts.story):
        words += " Where more came out than went in, rows were repeated."
    if facts.kind == "answers":
        words += " From `answer` on, rows are answers."
    return f"## How it was made\n\n{words}\n\n" + _table(
        ["step", ">rows in", ">rows out", "dropped"], rows
    )


def _dropped(drops: Mapping[str, int]) -> str:
    ordered = sorted(drops.items(), key=lambda entry: (-entry[1], entry[0]))
    words = [f"{n:,} {code(reason)}" for reason, n in ordered[:REASONS]]
    rest = ordered[REASONS:]
    if rest:
        words.append(f"{sum(n for _, n in rest):,} for {_n(len(rest), 'other reason')}")
    return ", ".join(words)


def _verdicts(facts: Facts) -> str:
    groups: list[tuple[str, dict[str, int], int]] = []
    n_domains, n_sources = (len(facts.drawn.by(column)) for column in ("domain", "source"))
    several = ["domain"] if n_domains > 1 else []
    if n_sources > n_domains:  # else each domain is its source
        several.append("source")
    kept = {c: facts.rows.by(c) for c in several}
    for column in several:
        counts: dict[Any, dict[tuple[str | None], int]] = {}
        for (key, verdict), n in facts.drawn.by(column, "verdict").items():
            counts.setdefault(key, {})[(verdict,)] = n
        groups += [
            (code(key), _verdict_counts(entry), kept[column].get((key,), 0))
            for key, entry in counts.items()
        ]
    total = _verdict_counts(facts.drawn.by("verdict"))
    if not sum(total.values()):
        return ""
    groups.append(("**all**" if groups else "all", total, facts.rows.rows))
    rows = []
    for name, entry, n_kept in groups:
        n = sum(entry.values())
        if n:
            cells = [f"{entry[v]:,}" for v in VERDICTS]
            share = _percent(entry["correct"], n)
            rows.append([name, f"{n:,}", *cells, share, _rate(entry), f"{n_kept:,}"])
    ended = [t.draws.get("until") for t in facts.teachers if isinstance(t.draws, Mapping)]
    bent = (
        " Draws for a question ended with the first correct one, so hard questions count more "
        "often than easy ones: on one draw for each, the teacher would be right more often."
        if "correct" in ended
        else ""
    )
    verdicts = [verdict.replace("_", " ") for verdict in VERDICTS]
    heads = ["answers", *verdicts, "right of all", "right of decided", "rows here"]
    return (
        "## Verdicts\n\n"
        "All answers that were compared with a reference, those dropped afterwards among them. "
        "Only `correct` and `incorrect` are decided: `unparsed` means that no final answer could "
        "be read, `no_reference` that none is known, `error` that the verifier gave up. "
        "Intervals are Wilson's, 95%, and take answers as independent, which draws for one "
        f"question are not quite.{bent}\n\n" + _table(["", *(f">{h}" for h in heads)], rows)
    )


def _verdict_counts(counts: Mapping[tuple[str | None], int]) -> dict[str, int]:
    return {verdict: counts.get((verdict,), 0) for verdict in VERDICTS}


def _rate(counts: Mapping[str, int]) -> str:
    decided = counts["correct"] + counts["incorrect"]
    if not decided:
        return "none decided"
    low, high = wilson(counts["correct"], decided)
    share = _percent(counts["correct"], decided)
    return f"{share} ({100 * low:.1f} to {100 * high:.1f}%)"


def _lengths(facts: Facts) -> str:
    if not facts.rows.lengths().total:
        return ""
    rows = []
    domains = facts.domains if len(facts.domains) > 1 else []
    cut = facts.rows.by("domain", "finish_reason")
    for domain in [*domains, None]:
        lengths = facts.rows.lengths(domain)
        if not lengths.total:
            continue
        n_cut = sum(
            n for (d, r), n in cut.items() if r == "length" and (domain is None or d == domain)
        )
        n = sum(n for (d, _), n in cut.items() if domain is None or d == domain)
        name = code(domain) if domain is not None else "**all**" if domains else "all"
        figures = [lengths.quantile(0.5), lengths.quantile(0.95), lengths.longest]
        rows.append([name, *(f"{x:,}" for x in figures), _percent(n_cut, n)])
    text = (
        "## Lengths\n\n![Histogram of the tokens of each answer](lengths.svg)\n\n"
        "Completion tokens of each answer, reasoning included, as its server counted them.\n\n"
        + _table(["", ">median", ">95% up to", ">longest", ">cut off"], rows)
    )
    if any(reason == "length" for _, reason in cut):
        text += (
            "\n\nAn answer that was cut off has `finish_reason` `length`. If it was cut while the "
            "teacher still thought, its answer is empty."
        )
    return text


def _columns(facts: Facts) -> str:
    rows = [
        [code(name), code(_type(dtype)), MEANINGS.get(name, "label, or column of a source")]
        for name, dtype in facts.columns.items()
    ]
    return "## Columns\n\n" + _table(["column", "type", ""], rows)


def _type(dtype: pl.DataType) -> str:
    feature = _feature("", dtype)
    return next((word for word in ("list", "struct") if word in feature), feature.get("dtype", ""))


def _licences(facts: Facts) -> str:
    rows = [
        [code(source), code(licence), f"{n:,}", _remark(licence)]
        for (source, licence), n in facts.rows.by("source", "licence").items()
    ]
    text = "## Licences\n\n" + _table(["source", "licence", ">rows", ""], rows)
    if facts.kind == "answers":
        text += (
            "\n\nThese are the licences of the questions. "
            "The terms of the teacher's maker hold for the answers."
        )
    return text


def _remark(licence: str | None) -> str:
    reason = objection(licence)
    return "" if reason is None or hub_name(licence) == "unknown" else reason


def _notes(facts: Facts) -> str:
    notes = [f"- {code(s.path)}: {prose(note)}" for s in facts.story for note in s.manifest.notes]
    return "## Notes\n\n" + "\n".join(notes) if notes else ""


def _reproduce(facts: Facts) -> str:
    longest = max((len(run) for run in re.findall(r"`+", facts.recipe)), default=0)
    fence = "`" * max(3, longest + 1)
    answers = (
        ", and asks the teacher the same; answers that a store holds are used again, others are "
        "drawn anew"
        if facts.kind == "answers"
        else ""
    )
    return (
        "## Make it again\n\n```\nstillroom run recipe.yaml\n```\n\n"
        f"Stillroom {facts.stillroom} wrote it. The same recipe on the same sources gives the "
        f"same questions in the same order{answers}. `stillroom.json` holds the key of every step "
        "and the digest of every file.\n\n"
        "<details>\n<summary>recipe.yaml</summary>\n\n"
        f"{fence}yaml\n{facts.recipe.rstrip()}\n{fence}\n\n</details>"
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table; a head that starts with ``>`` is for numbers."""
    lines = [
        [h.removeprefix(">") for h in heads],
        ["---:" if h.startswith(">") else "---" for h in heads],
        *rows,
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _n(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "none"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
