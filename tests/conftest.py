"""Fixtures for every test: a bare environment, a store, and ways to run recipes."""

import os
from pathlib import Path

import hypothesis
import pytest

DATA = os.environ.get("STILLROOM_DATA")

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests on real data, with the reason, where the data is not at hand."""
    if DATA and Path(DATA).is_dir():
        return
    skip = pytest.mark.skip(reason="STILLROOM_DATA names no folder of real questions")
    for item in items:
        if "data" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """Keep the user's settings, keys and caches out of tests."""
    for name in list(os.environ):
        if name.startswith(("STILLROOM_", "OPENAI_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STILLROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture
def data() -> Path:
    """The folder of real questions and benchmarks."""
    assert DATA is not None
    return Path(DATA)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the hub, which its client takes for the real one."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    from tests.hub_server import TOKEN, HubServer

    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        disable_progress_bars()
        yield server
