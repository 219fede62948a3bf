"""Keys: where they come from, and what is said when they do not."""

from pathlib import Path

import pytest

from stillroom.errors import ModelError
from stillroom.models.keys import find_key

KEY = "sk-planted-0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stillroom" / "keys.env"
    path.parent.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("STILLROOM_KEYS", raising=False)
    monkeypatch.delenv("TEST_KEY", raising=False)
    return path


def write(file: Path, text: str, mode: int = 0o600) -> None:
    file.write_text(text)
    file.chmod(mode)


def find() -> str:
    return find_key("TEST_KEY", where="my/model", what_for="http://host/v1")


@pytest.mark.parametrize(
    "line",
    [f"TEST_KEY={KEY}", f"export TEST_KEY={KEY}", f'  TEST_KEY = "{KEY}"  ', f"TEST_KEY='{KEY}'"],
)
def test_key_comes_from_the_file(file: Path, line: str) -> None:
    write(file, f"# mine\n\nOTHER=1\n{line}\n")
    assert find() == KEY


def test_environment_counts_before_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(file, "TEST_KEY=other")
    monkeypatch.setenv("TEST_KEY", f" {KEY}\n")
    assert find() == KEY


def test_file_can_be_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", f"TEST_KEY={KEY}")
    monkeypatch.setenv("STILLROOM_KEYS", str(tmp_path / "mine"))
    assert find() == KEY


def test_env_file_of_the_project_is_not_read(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / ".env", f"TEST_KEY={KEY}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=f"is not set, and {file} does not hold it"):
        find()


def test_file_that_others_may_read_is_refused(file: Path) -> None:
    write(file, f"TEST_KEY={KEY}", 0o640)
    with pytest.raises(
        ModelError, match=f"others may read it .mode 640.*chmod 600 {file}"
    ) as caught:
        find()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("text", [b"TEST_KEY=sk-a b", b"TEST_KEY=sk-\xc3\xa9", b"TEST_KEY=sk-\xff"])
def test_odd_keys_are_not_shown(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    file.chmod(0o600)
    with pytest.raises(ModelError) as caught:
        find()
    assert "sk-" not in str(caught.value)
