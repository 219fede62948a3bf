"""A sitting as a log of Inspect (inspect-ai), so that its viewer and its tools can read it.

The form is version 2 of Inspect's ``.eval`` file: a zip of JSON, with ``header.json`` (what was
asked of whom, and the score), ``summaries.json``, and a file for each sample. A sample is one
attempt: its epoch is the number of the repeat, from 1. Its messages hold the thinking as a part of
their own, its score the verdict with what was extracted and by whom. Inspect is not needed to write
it; ``inspect log convert`` makes plain JSON of it.

Source: https://inspect.aisi.org.uk/eval-logs.html and the types of ``inspect_ai.log``.
"""

import datetime
import importlib.metadata
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from stillroom.evaluate.grade import Exam, Grades
from stillroom.rows import content_id
from stillroom.store.artifact import Artifact
from stillroom.store.store import disk_errors

SHOWN = 500  # characters of a question in a summary
_STOPS = {"stop": "stop", "length": "max_tokens", "content_filter": "content_filter"}
_COLUMNS = (
    "question_id", "row", "draw", "question", "reference", "reasoning", "answer", "finish_reason",
    "prompt_tokens", "completion_tokens", "verdict", "extracted", "rule", "verifier",
    "verdict_detail",
)  # fmt: skip
Json = dict[str, Any]


def write_inspect_log(
    folder: Path, exam: Exam, model: str, grades: Grades, errors: Mapping[str, float]
) -> Path:
    """Write the log of one sitting; an older one of the same sitting is replaced.

    Args:
        folder: Where logs lie.
        exam: What was sat.
        model: Frozen name of who sat it.
        grades: How it went, with its attempts.
        errors: Further metrics by name, such as ``stderr``.

    Returns:
        The file.

    Raises:
        StoreError: If the folder cannot be written.
    """
    assert grades.attempts is not None, "grades of `grade` have their attempts"
    key = grades.keys["verify"]
    written = _written(grades.attempts.columns[-1])
    file = folder / f"{_plain(exam.name)}_{_plain(model)}_{key[:8]}.eval"
    with disk_errors(file):
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as log:

            def put(name: str, content: Any) -> None:
                info = zipfile.ZipInfo(name, written.timetuple()[:6])
                info.compress_type = zipfile.ZIP_DEFLATED
                text = json.dumps(content, ensure_ascii=False, allow_nan=False)
                log.writestr(info, text.encode("utf-8", "replace"))

            header = _header(exam, model, grades, errors, written)
            start = {name: header[name] for name in ("version", "eval", "plan")}
            put("_journal/start.json", start)
            summaries = []
            for sample in _samples(exam, model, grades):
                put(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", sample)
                summaries.append(_summary(sample))
            put("summaries.json", summaries)
            put("header.json", header)
        partial.replace(file)
    return file


def _header(
    exam: Exam,
    model: str,
    grades: Grades,
    errors: Mapping[str, float],
    written: datetime.datetime,
) -> Json:
    at = written.isoformat()
    key = grades.keys["verify"]
    config = _sampling(exam)
    items = grades.table["row"].unique().sort().to_list()
    total = grades.table.height
    assert grades.attempts is not None
    failed = total - grades.attempts.height
    scorer = _scorer(exam)
    metrics = {"accuracy": grades.accuracy, **errors}
    usage = _total_usage(grades)
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": key,
            "run_id": key,
            "created": at,
            "task": exam.name,
            "task_id": key,
            "task_version": 0,
            "dataset": {
                "name": exam.name,
                "samples": len(items),
                "sample_ids": items,
                "shuffled": False,
            },
            "model": model,
            "model_generate_config": config,
            "config": {"epochs": exam.repeats, "epochs_reducer": ["mean"]},
            "packages": {"stillroom": importlib.metadata.version("stillroom")},
            "metadata": {"keys": grades.keys, "notes": list(grades.notes)},
            "scorers": [{"name": scorer}],
        },
        "plan": {
            "name": "plan",
            "steps": [
                {"solver": "generate", "params": {"prefix": exam.prefix, "suffix": exam.suffix}}
            ],
            "config": config,
        },
        "results": {
            "total_samples": total,
            "completed_samples": total - failed,
            "scores": [
                {
                    "name": scorer,
                    "scorer": scorer,
                    "reducer": "mean",
                    "scored_samples": total,
                    "unscored_samples": 0,
                    "metrics": {n: {"name": n, "value": v} for n, v in metrics.items()},
                }
            ],
        },
        "stats": {"started_at": at, "completed_at": at, "model_usage": {model: usage}},
    }


def _samples(exam: Exam, model: str, grades: Grades) -> Iterator[Json]:
    """Make a sample of each attempt: first those that got a reply, then those that did not."""
    assert grades.attempts is not None
    scores = {(item, repeat): score for item, repeat, score in grades.table.select(
        "item", "repeat", "score").iter_rows()}  # fmt: skip
    for frame in grades.attempts.frames(*_COLUMNS):
        for row in frame.iter_rows(named=True):
            yield _answered(exam, model, row, scores.pop((row["question_id"], row["draw"])))
    if scores:
        assert grades.attempts.parent is not None
        lost = pl.DataFrame(list(scores), schema=["question_id", "draw"], orient="row")
        asked = grades.attempts.parent.scan("id", "row", "question", "reference").collect()
        lost = lost.join(asked, left_on="question_id", right_on="id", maintain_order="left")
        for row in lost.iter_rows(named=True):
            words = "The model gave no reply."
            error = {"message": words, "traceback": words, "traceback_ansi": words}
            # It counts as wrong, so it has a score: else means over samples would be higher.
            metadata = {"verdict": "error", "rule": None, "verifier": None}
            score = {"value": 0.0, "answer": None, "explanation": words, "metadata": metadata}
            yield {**_asked(exam, row), "error": error, "scores": {_scorer(exam): score}}


def _asked(exam: Exam, row: Json) -> Json:
    text = f"{exam.prefix}{row['question']}{exam.suffix}"
    return {
        "id": row["row"],
        "epoch": row["draw"] + 1,
        "uuid": content_id(exam.name, row["question_id"], row["draw"]),
        "input": text,
        "target": row["reference"] or "",
        "messages": [{"role": "user", "content": text}],
        "metadata": {"item": row["question_id"]},
    }


def _answered(exam: Exam, model: str, row: Json, score: float) -> Json:
    sample = _asked(exam, row)
    content = [{"type": "text", "text": row["answer"] or ""}]
    if row["reasoning"]:
        content.insert(0, {"type": "reasoning", "reasoning": row["reasoning"]})
    message = {"role": "assistant", "content": content, "source": "generate", "model": model}
    usage = _usage(row["prompt_tokens"], row["completion_tokens"])
    stop = _STOPS.get(row["finish_reason"] or "", "unknown")
    verdict = {
        "value": score,
        "answer": row["extracted"],
        "explanation": row["verdict_detail"],
        "metadata": {name: row[name] for name in ("verdict", "rule", "verifier")},
    }
    return {
        **sample,
        "messages": [*sample["messages"], message],
        "output": {
            "model": model,
            "choices": [{"message": message, "stop_reason": stop}],
            "usage": usage,
        },
        "scores": {_scorer(exam): verdict},
        "model_usage": {model: usage},
    }


def _summary(sample: Json) -> Json:
    names = ("id", "epoch", "uuid", "target", "metadata", "model_usage")
    there = {name: sample[name] for name in names if name in sample}
    scores = {
        name: {"value": score["value"], "answer": score["answer"]}
        for name, score in sample.get("scores", {}).items()
    }
    error = sample.get("error", {}).get("message")
    return {
        **there,
        "input": sample["input"][:SHOWN],
        "scores": scores or None,
        "error": error,
        "completed": error is None,
        "message_count": len(sample["messages"]),
    }


def _sampling(exam: Exam) -> Json:
    given = {
        "temperature": exam.temperature, "top_p": exam.top_p, "max_tokens": exam.max_tokens,
    }  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _scorer(exam: Exam) -> str:
    stages: Sequence[Any] = [exam.verify] if isinstance(exam.verify, str) else exam.verify
    return "_".join(stage if isinstance(stage, str) else next(iter(stage)) for stage in stages)


def _usage(prompt: int | None, completion: int | None) -> Json:
    total = (prompt or 0) + (completion or 0)
    return {"input_tokens": prompt or 0, "output_tokens": completion or 0, "total_tokens": total}


def _total_usage(grades: Grades) -> Json:
    assert grades.attempts is not None
    sums = grades.attempts.scan("prompt_tokens", "completion_tokens").sum().collect().row(0)
    return _usage(*sums)


def _written(artifact: Artifact) -> datetime.datetime:
    """Return when the verdicts were written: the log says the same however often it is written."""
    seconds = int((artifact.path / "manifest.json").stat().st_mtime)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _plain(name: str) -> str:
    """Return a name that a file can have; underscores part the parts of a log's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
