"""The command line: what it prints, and how it ends."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stillroom.run.doctor import EXTRAS, Extra, examine
from stillroom.store.gc import using
from stillroom.store.store import Store


def stillroom(*arguments: str, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run(
        [sys.executable, "-m", "stillroom", *arguments],
        capture_output=True, text=True, env=environment, cwd=cwd, check=False,
    )  # fmt: skip


def test_core_install_needs_no_package_of_an_extra():
    absent = "numpy", "scipy", "torch", "transformers", "pyarrow", "datasets"
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from stillroom.cli import cli\n"
        "for name in cli.list_commands(None): assert cli.get_command(None, name), name"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from stillroom.cli import cli; from click.testing import CliRunner; "
        "result = CliRunner().invoke(cli, ['--help']); assert result.exit_code == 0; "
        "print(sorted({'polars', 'pydantic', 'rich', 'aiohttp', 'tokenizers', 'torch'} "
        "& set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=environment, check=True)  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_verbs_have_the_help_that_the_group_shows():
    import click

    from stillroom.cli import VERBS, cli

    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        assert command.help


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nosuch"], "nosuch: no such recipe; expected a file, or one of"),
        (["run", "quickstart", "--source", "x=y"], "--source x: there is no source or"),
        (
            ["run", "quickstart", "--models", "nosuch.toml"],
            "nosuch.toml: cannot be read (No such file",
        ),
        (["show", "quickstart", "math.take"], "no run of quickstart; expected one of none yet"),
        (["why", "abc"], "abc: no row with this id or text in store"),
    ],
)
def test_mistake_is_one_line_and_status_one(tmp_path, arguments, message):
    done = stillroom(*arguments, cwd=str(tmp_path))
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_store_that_is_a_file_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    done = stillroom("run", "quickstart", "--store", "file", cwd=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("file/recipes/quickstart.json: Not a directory. ")
    assert done.stderr.count("\n") == 1


def test_unreadable_source_is_one_message(tmp_path):
    (tmp_path / "q.jsonl").mkdir()
    (tmp_path / "r.yaml").write_text("name: r\ndomains: {math: [{source: q.jsonl}]}\n")
    done = stillroom("run", "r.yaml", cwd=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("q.jsonl: ")
    assert done.stderr.count("\n") == 1


def test_malformed_option_is_a_usage_error(tmp_path):
    done = stillroom("run", "quickstart", "--source", "oops", cwd=str(tmp_path))
    assert done.returncode == 2
    assert "'oops'; expected NAME=FILE." in done.stderr


def test_ls_of_nothing_says_what_to_do(tmp_path):
    done = stillroom("ls", cwd=str(tmp_path))
    assert done.returncode == 0
    assert "nothing yet. Try `stillroom run quickstart`" in done.stdout


def test_ls_and_why_know_of_studies(tmp_path):
    with using(Store(tmp_path / "store"), "sources") as use:
        use("answer", "a")
        use("verify", "b")
    assert stillroom("ls", cwd=str(tmp_path)).stdout == "sources: a study, 2 artifacts\n"
    done = stillroom("why", "apples", cwd=str(tmp_path))
    assert done.returncode == 1
    assert "Rows that only studies made are not looked through: see their" in done.stderr


def test_schema_is_json(tmp_path):
    import json

    done = stillroom("schema", cwd=str(tmp_path))
    assert json.loads(done.stdout)["title"] == "Stillroom recipe"


def test_doctor_names_a_damaged_artifact_and_the_remedy(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\ndomains: {math: [{source: {shipped: word_problems}}]}\n")
    assert stillroom("run", "r.yaml", cwd=str(tmp_path)).returncode == 0
    (shard,) = (tmp_path / "store" / "artifacts").glob("*/*/*.parquet")
    shard.write_bytes(shard.read_bytes()[:-1])
    done = stillroom("doctor", cwd=str(tmp_path))
    assert done.returncode == 1
    assert f"FAIL store: store/{shard.relative_to(tmp_path / 'store')}" in done.stdout
    assert f"→ rm -r {shard.parent.relative_to(tmp_path)}, and run the recipe again" in done.stdout


def test_doctor_lists_every_extra_and_what_it_is_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    promised = {
        extra: {re.split("[^A-Za-z0-9-]", wanted)[0] for wanted in packages} - {"stillroom"}
        for extra, packages in project["optional-dependencies"].items()
    }
    listed = {
        name: {module.replace("_", "-") for module in extra.modules}
        for name, extra in EXTRAS.items()
    }
    assert listed == promised
    assert all(extra.use for extra in EXTRAS.values())


def test_doctor_tells_how_to_get_an_extra_that_is_absent(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "scipy" else there(name)
    )
    (finding,) = [f for f in examine(tmp_path / "store", None) if f.what == "extra study"]
    assert finding.state == "absent"
    assert finding.found == "no scipy; for `study`, `search` and `eval`"
    assert finding.remedy == "if you need it: pip install 'stillroom[study]'"


def test_doctor_takes_no_folder_of_a_run_for_a_package(tmp_path, monkeypatch):
    (tmp_path / "made_by_a_run").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXTRAS, "hub", Extra(("made_by_a_run",), "tests"))
    (finding,) = [f for f in examine(tmp_path / "store", None) if f.what == "extra hub"]
    assert finding.state == "absent"


def test_a_plan_is_printed_whole_however_narrow_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    (tmp_path / "r.yaml").write_text(
        "name: r\nmodels: {teacher: {name: t, max_tokens: 32000}}\ndomains:\n  science:\n"
        "    - mix: {organic_chemistry_of_the_olympiads: [{source: there_is_no_such_file.jsonl}]}\n"
        "    - take: 1000000\n    - answer: {draws: 16}\n"
    )
    done = stillroom("plan", "r.yaml", cwd=str(tmp_path))
    assert "science.mix.organic_chemistry_of_the_olympiads.source " in done.stdout
    assert "there_is_no_such_file.jsonl" in done.stdout
    assert " ≤512,000,000,000 " in done.stdout
    assert "…" not in done.stdout


def test_control_characters_of_a_source_do_not_reach_the_terminal(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "evil \\u001b[31mred\\u0007?"}\n')
    (tmp_path / "r.yaml").write_text("name: r\ndomains: {math: [{source: q.jsonl}]}\n")
    assert stillroom("run", "r.yaml", cwd=str(tmp_path)).returncode == 0
    for arguments in (["show", "r", "math.source"], ["why", "evil"]):
        done = stillroom(*arguments, cwd=str(tmp_path))
        assert "evil" in done.stdout
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout


def test_generated_pages_are_current():
    done = subprocess.run(
        [sys.executable, "scripts/make_docs.py", "--check"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
