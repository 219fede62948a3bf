"""The studies of the repository: read, checked, and planned where there is no network."""

import socket
from pathlib import Path

import pytest

from stillroom.cli import main
from stillroom.evaluate.grade import exam_of
from stillroom.study.load import load_study
from stillroom.study.run import arms_of, settings_of

STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(STUDIES.rglob("study.yaml"))
OPENTHOUGHTS = [file for file in FILES if "openthoughts" in file.parts]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.parent.relative_to(STUDIES)))
def test_a_study_is_whole(file):
    study = load_study(file)
    assert set(arms_of(study, beside=file.parent)) == set(study.arms)
    assert settings_of(study.student)
    for name in (*study.benchmarks.develop, *study.benchmarks.held_out):
        assert exam_of(name, study.benchmarks.repeats).repeats >= 1


def test_the_papers_six_stages_are_there_for_three_domains_by_one_protocol():
    assert len(OPENTHOUGHTS) == 18
    assert len({load_study(file).name for file in OPENTHOUGHTS}) == 18
    first = load_study(OPENTHOUGHTS[0])
    for file in OPENTHOUGHTS:
        study = load_study(file)
        assert (study.rows, study.student, study.benchmarks) == (
            31_600, first.student, first.benchmarks,
        )  # fmt: skip
    assert settings_of(first.student)["learning_rate"] == 4e-5


@pytest.mark.slow
@pytest.mark.parametrize("stage", sorted({file.parent.name for file in OPENTHOUGHTS}))
def test_a_study_of_the_hub_is_planned_without_network(stage, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("scipy")

    def refuse(*arguments, **more):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    file = STUDIES / "openthoughts" / "math" / stage / "study.yaml"
    main(["plan", str(file), "--store", str(tmp_path / "store")])
    said = capsys.readouterr().out
    assert f"{3 * len(load_study(file).arms)} students to train" in said
