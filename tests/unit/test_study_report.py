"""What a report says of many arms: short in words, whole in tables, and of few as before."""

import json
import re

import numpy as np
import polars as pl
import pytest

pytest.importorskip("scipy")

from stillroom.evaluate.grade import Grades
from stillroom.study.form import Study
from stillroom.study.reports.curves import COLOURS, Point, curves_svg
from stillroom.study.reports.study import write_report
from stillroom.study.result import Result, Sat

BENCHMARKS = {"algebra": 40, "number_theory": 60}


def made_up(arms: int, failed: int = 0) -> Result:
    rng = np.random.default_rng(0)
    names = [f"{'a long way to choose questions, ' * (n > 3)}arm {n:02}" for n in range(arms)]
    study = Study.model_validate({
        "name": "s", "question": "Which?", "base": "b", "rows": 10, "seeds": 2, "matters": 0.01,
        "arms": {name: {"math.take": n} for n, name in enumerate(names)}, "student": {},
        "benchmarks": list(BENCHMARKS),
    })  # fmt: skip
    places = [("base", 0, None, 0.1)]
    places += [(name, s, f"{n}-{s}", n / arms) for s in range(2) for n, name in enumerate(names)]
    sat = []
    for number, (arm, seed, key, skill) in enumerate(places):
        grades = {
            name: Grades(
                pl.DataFrame({
                    "item": [f"{name}{i}" for i in range(items)], "repeat": 0, "verdict": "correct",
                    "score": (rng.random(items) < skill).astype(float), "finish_reason": "stop",
                    "completion_tokens": 7,
                }),
                {"verify": f"v{number}{name}"},
            )
            for name, items in BENCHMARKS.items()
        }  # fmt: skip
        died = number > len(places) - 1 - failed
        why = f"python ended with status 1; its log, /tmp/{number:032x}/log, ends: no memory"
        shown = str(number)
        sat.append(Sat(arm, seed, key, 10, 10, 10, shown, grades={} if died else grades,
                       failed=why if died else None))  # fmt: skip
    return Result(study, sat, {(name, seed): [] for name in names for seed in range(2)})


def tables(report: str) -> dict[str, list[list[str]]]:
    """Return the rows of the table below each heading."""
    found = {}
    for part in report.split("\n## ")[1:]:
        rows = [line for line in part.splitlines() if line.startswith("| ")]
        cells = [[c.strip() for c in row.strip("| ").split(" | ")] for row in rows]
        found[part.splitlines()[0]] = cells
    return found


def test_many_arms_are_counted_in_words_and_stand_side_by_side_in_tables(tmp_path):
    result = made_up(30)
    write_report(result, tmp_path)
    report = (tmp_path / "report.md").read_text()
    verdict = [line for line in report.split("\n## ")[0].splitlines() if line.startswith("- ")]
    facts = json.loads((tmp_path / "results.json").read_text())
    assert len(verdict) <= 5
    assert all(len(line) < 700 for line in verdict)
    pooled = [d for d in facts["differences"] if d["benchmark"] is None]
    better, none = (sum(d["verdict"] == side for d in pooled) for side in (1, 0))
    assert re.match(rf"- {better} of 29 arms beat arm 00, the farthest: ", verdict[0])
    assert f"- Of {none} arms no difference from arm 00 was found." in verdict
    assert "has the highest mean" in verdict[-1]
    found = tables(report)
    names = set(result.study.arms)
    values = [float(row[2]) for row in found["Differences from arm 00"][2:]]
    assert len(values) == 29
    assert values == sorted(values, reverse=True)
    side = found["Differences by benchmark"]
    assert side[0] == ["arm", "algebra", r"number\_theory"]
    assert {row[0] for row in side[2:]} == names - {"arm 00"}
    single = {(d["arm"], d["benchmark"]): d for d in facts["differences"] if d["benchmark"]}
    for arm, *cells in side[2:]:
        for name, cell in zip(BENCHMARKS, cells, strict=True):
            d = single[arm, name]
            mark = {1: " ▲", -1: " ▼", 0: ""}[d["verdict"]]
            assert cell == f"{100 * d['estimate']['value']:+z.1f}{mark}"
    assert {row[0] for row in found["Scores by benchmark"][2:]} == names | {"base (untrained)"}
    assert len(found["Scores"]) == 2 + 31
    # What left the tables is for programs.
    assert len(facts["scores"]) == 30 * 3
    keys = {key for s in facts["students"] for key in s["grades"].values()}
    assert keys == {g.keys["verify"] for s in result.sat[1:] for g in s.grades.values()}
    page = (tmp_path / "report.html").read_text()
    parts = re.findall(r'id="(part-[0-9]+)"', page)
    assert len(parts) == len(set(parts))
    assert page.count('<div class="wide" tabindex="0" role="region"') == page.count("</table>") + 1
    assert '<td class="up">' in page
    # On the root: else the page stays white in dark mode, and cells that stay in view turn black.
    assert ":root{color-scheme:light dark}" in page
    svg = (tmp_path / "difference.svg").read_text()
    assert all(f"<title>{name}</title>" in svg for name in names - {"arm 00"})
    assert not (tmp_path / "difference-by-benchmark.svg").exists()


def test_few_arms_have_a_sentence_and_a_line_each(tmp_path):
    write_report(made_up(4), tmp_path)
    report = (tmp_path / "report.md").read_text()
    verdict = [line for line in report.split("\n## ")[0].splitlines() if line.startswith("- ")]
    assert len(verdict) >= 4
    assert len(tables(report)["Differences from arm 00"]) == 2 + 3 * 3
    assert len(tables(report)["Scores"]) == 2 + 2 + 4 * 3
    assert len(tables(report)["Keys"]) == 2 + 8
    assert (tmp_path / "difference-by-benchmark.svg").exists()


def test_students_that_failed_alike_are_told_once_and_their_arms_are_counted(tmp_path):
    write_report(made_up(20, failed=6), tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "6 arms are in no comparison, because students were not trained:" in report
    assert report.count("no memory") == 1
    assert "6 of 40 students, such as a long way" in report
    assert len(tables(report)["Differences from arm 00"]) == 2 + 13


def test_of_many_curves_the_best_that_got_farthest_are_named():
    sizes = (300, 1_000, 3_000)
    curves = {
        f"arm {n:02}": [Point(size, n, n - 1, n + 1) for size in sizes[: 3 if n > 9 else 1]]
        for n in range(27)
    }
    svg = curves_svg("right, %", "rows", curves)
    named = [n for n in range(27) if f">arm {n:02}</text>" in svg]
    assert named == list(range(27 - len(COLOURS), 27))
    assert f">{27 - len(COLOURS)} others</text>" in svg
    assert all(f"<title>arm {n:02}</title>" in svg for n in range(27))
    assert svg.count("<circle") == sum(map(len, curves.values()))
