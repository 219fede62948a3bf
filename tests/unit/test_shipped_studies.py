"""The studies of the repository: read, checked, and planned where there is no network."""

import socket
from pathlib import Path

import pytest

from stillroom.cli import main
from stillroom.errors import SourceError
from stillroom.evaluate.grade import exam_of
from stillroom.study.arms import arms_of, read_arm, read_base
from stillroom.study.form import Mixing
from stillroom.study.load import load_design, load_study
from stillroom.study.students import settings_of

STUDIES = Path(__file__).parents[2] / "studies"
FILES = sorted(STUDIES.rglob("study.yaml"))
OPENTHOUGHTS = [file for file in FILES if "openthoughts" in file.parts]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.parent.relative_to(STUDIES)))
def test_a_study_is_whole(file):
    study = load_design(file)
    if isinstance(study, Mixing):
        mixing = pytest.importorskip("stillroom.study.mixing.run")
        name, base = read_base(study.base, file.parent)
        assert mixing.sources_of(study, read_arm(name, base, "base", {})).groups
    else:
        assert set(arms_of(study, beside=file.parent)) == set(study.arms)
        if study.race:
            race = pytest.importorskip("stillroom.study.race.run")
            recipes = race.recipes_of(study, beside=file.parent)
            assert len(recipes) == len(study.race.scales)
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


def test_the_proxy_search_has_the_papers_six_stages_and_every_arm_fits():
    pytest.importorskip("scipy")
    from stillroom.study.search.form import load_search
    from stillroom.study.search.plan import preview

    file = STUDIES / "proxy" / "search.yaml"
    studies = preview(load_search(file), beside=file.parent)
    assert [study.name for study, _ in studies] == [
        "1-sources", "2-mixing", "2-weights-mixtures", "2-weights", "3-questions", "4-draws",
        "5-answers", "6-teacher",
    ]  # fmt: skip
    assert all(set(recipes) == set(study.arms) for study, recipes in studies)
    assert len({(s.rows, s.benchmarks.develop) for s, _ in studies}) == 1
    steps = {study.name: study.student.settings["steps"] for study, _ in studies}
    assert steps.pop("2-weights-mixtures") == 150  # many students, so short ones
    assert set(steps.values()) == {400}


@pytest.fixture
def no_network(monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("scipy")

    def refuse(*arguments, **more):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    # Looking a name up in vain takes longer than all planning.
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.slow
@pytest.mark.parametrize("stage", sorted({file.parent.name for file in OPENTHOUGHTS}))
def test_a_stage_of_the_paper_is_planned_in_each_domain(stage, tmp_path, no_network, capsys):
    for domain in ("math", "code", "science"):
        file = STUDIES / "openthoughts" / domain / stage / "study.yaml"
        main(["plan", str(file), "--store", str(tmp_path / "store")])
        said = capsys.readouterr().out
        assert f"{3 * len(load_study(file).arms)} students to train" in said
        # 7,578 attempts for each: all of the paper's eight but CodeForces, which nobody counted.
        assert f"{7_578 * 3 * len(load_study(file).arms):,} attempts on benchmarks" in said
        assert "those on codeforces are counted once the items are fetched" in " ".join(
            said.split()
        )
        assert "calls, tokens unknown: give max_tokens" in said
        assert "It would usually see a difference of" in said


@pytest.mark.slow
def test_the_proxy_search_is_planned(tmp_path, no_network, capsys):
    main(["plan", str(STUDIES / "proxy" / "search.yaml"), "--store", str(tmp_path / "store")])
    said = capsys.readouterr().out
    assert "2-weights-mixtures: In which proportions" in said
    assert "136 students to train in all" in said
    # Random mixtures are not compared, so no difference can be promised of them.
    mixtures, confirmed = said.split("2-weights-mixtures: ")[1].split("2-weights: ")
    assert "a regression on all of them" in mixtures
    assert "see a difference" not in mixtures
    assert "see a difference" in confirmed.split("\n3-")[0]
    assert "regression" not in confirmed


def test_what_arms_and_seeds_share_is_planned_once(tmp_path, no_network, monkeypatch, capsys):
    asked = []

    def unreachable(repo):
        asked.append(repo)
        raise SourceError(f"hub {repo}: no network")

    monkeypatch.setattr("stillroom.steps.source.source.newest_commit", unreachable)
    file = STUDIES / "openthoughts" / "math" / "4-draws" / "study.yaml"
    main(["plan", str(file), "--store", str(tmp_path / "store")])
    assert asked == ["ai2-adapt-dev/openmath-2-math"]
    said = " ".join(capsys.readouterr().out.split())
    # Three pools of 1.1 million questions are labelled, whatever the arms do with them.
    assert "shared by arms 19 0 3,300,000" in said
    assert "exact, 1 answer alone 6 0 94,800" in said
    assert "if nothing were shared 207 0 30,553,200" in said
