"""Where models are served: the file, its errors, and what it opens."""

import socket
from pathlib import Path

import pytest
from tests.servers import TeacherServer
from tests.tiny_checkpoints import write_checkpoint

from stillroom.errors import ModelError, SetupError
from stillroom.models.chat import Completion, Message, Request, Sampling
from stillroom.models.config import EMBEDDED, ModelsConfig, Price, load_config
from stillroom.models.openai import OpenAIModel

SERVED = """
[models."Qwen/QwQ-32B"]
engine = "openai"
base_url = ["http://127.0.0.1:8000/v1/", "http://127.0.0.1:8001/v1"]
served_name = "qwq"
concurrency = 8
timeout_s = 60
price = {prompt = 0.15, completion = 0.6}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "models.toml"
    file.write_text(text)
    return file


def entry(**fields: str) -> str:
    fields = {"engine": '"openai"', "base_url": '"http://127.0.0.1:1/v1"', **fields}
    return '[models."a/b"]\n' + "".join(f"{name} = {value}\n" for name, value in fields.items())


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STILLROOM_MODELS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def load_error(folder: Path, text: str) -> str:
    with pytest.raises(ModelError) as caught:
        load_config(write(folder, text))
    return str(caught.value)


# Finding the file


def test_load_without_any_file_knows_the_embedded_models() -> None:
    assert load_config().known() == sorted(EMBEDDED)


def test_load_takes_the_first_file_of_the_search_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / name for name in ("config/stillroom", ".", "named", "given")]
    found = []
    for number, place in enumerate(places):
        place.mkdir(parents=True, exist_ok=True)
        write(place, f'[models.m{number}]\nengine = "local"\npath = "x"\n')
        if place.name == "named":
            monkeypatch.setenv("STILLROOM_MODELS", str(place / "models.toml"))
        given = place / "models.toml" if place.name == "given" else None
        found.append([name for name in load_config(given).known() if name not in EMBEDDED])
    assert found == [["m0"], ["m1"], ["m2"], ["m3"]]


def test_load_named_file_that_is_absent_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"^nowhere\.toml: cannot be read \(No such file"):
        load_config("nowhere.toml")
    monkeypatch.setenv("STILLROOM_MODELS", "gone.toml")
    with pytest.raises(ModelError, match=r"^gone\.toml: cannot be read"):
        load_config()


# Errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[models\n", "Expected ']' at the end of a table declaration (at line 1"),
        ("modls = 3", "a key modls, which means nothing; expected some of models, students."),
        ("models = 3", "models is 3; expected"),
        ("[models]\nx = 3", "models.x is 3; expected"),
        ('[models.x]\nbase_url = "http://a.b"', "models.x.engine is missing"),
        (
            entry(engine='"opnai"'),
            'models."a/b".engine is opnai; expected one of openai, local,',
        ),
        (entry(engine='"opnai"'), "Did you mean openai?"),
        (entry(concurency="3"), 'models."a/b" has a key concurency, which means nothing'),
        (entry(concurency="3"), "Did you mean concurrency?"),
        (entry(concurrency="0"), "concurrency is 0; expected greater than or equal to 1."),
        (entry(concurrency="1.5"), "concurrency is 1.5; expected a valid integer."),
        (entry(timeout_s="inf"), "timeout_s is Infinity; expected a finite number"),
        (entry(timeout_s='"60"'), 'timeout_s is "60"; expected a valid number.'),
        (entry(base_url='"127.0.0.1:8000"'), "expected an address such as http://"),
        (entry(base_url="[]"), "base_url"),
        (entry(base_url="3"), "base_url is 3"),
        (entry(price="{prompt = 1}"), "price.completion is missing"),
        (entry(price="{prompt = -1, completion = 1}"), "price.prompt is -1"),
        (entry(price="{promt = 1, prompt = 1, completion = 1}"), "Did you mean prompt?"),
        ('[models.x]\nengine = "openai"', "models.x.base_url is missing"),
        ('[models.x]\nengine = "local"', "models.x.path is missing"),
        ('[models.x]\nengine = "local"\npath = 3', "models.x.path is 3; expected a path."),
        ('[models.local]\nengine = "local"\npth = "y"', "models.local.path is missing"),
        ('[models.local]\nengine = "local"\npth = "y"', "Did you mean path?"),
    ],
)
def test_error_names_file_place_value_and_what_was_expected(
    tmp_path: Path, text: str, words: str
) -> None:
    message = load_error(tmp_path, text)
    assert words in message
    assert all(line.startswith(f"{tmp_path}/models.toml: ") for line in message.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        entry(api_key='"sk-planted"'),
        entry(api_key_env='"sk-planted"'),
        entry(base_url='"http://user:sk-planted@127.0.0.1/v1"'),
        entry(base_url='"http://127.0.0.1/v1?key=sk-planted"'),
    ],
)
def test_error_never_shows_a_key_that_was_put_into_the_file(tmp_path: Path, text: str) -> None:
    assert "planted" not in load_error(tmp_path, text)


def test_error_for_binary_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="expected TOML"):
        load_config(file)


def test_without_a_file_of_models_the_message_says_how_one_looks() -> None:
    with pytest.raises(ModelError, match=r"models.toml, as docs/reference-models.md shows\.$"):
        ModelsConfig({}).open("t")


@pytest.mark.parametrize(
    ("name", "near"),
    [("qwq-32b", "Qwen/QwQ-32B"), ("Qwen/QwQ32B", "Qwen/QwQ-32B"), ("gpt-9", None)],
)
def test_unknown_model_names_the_configured_ones(
    tmp_path: Path, name: str, near: str | None
) -> None:
    config = load_config(write(tmp_path, SERVED))
    with pytest.raises(ModelError) as caught:
        config.open(name)
    message = str(caught.value)
    assert message.startswith(
        f"{name}: no such model; configured models are Qwen/QwQ-32B, stillroom/base-1, "
        f"stillroom/novice-1, stillroom/teacher-1. Add it to {tmp_path}/models.toml."
    )
    assert ("Did you mean" in message) == (near is not None)
    assert near is None or message.endswith(f"Did you mean {near}?")


# Opening


def test_open_served_model_has_the_settings_of_the_file(tmp_path: Path) -> None:
    model = load_config(write(tmp_path, SERVED)).open("Qwen/QwQ-32B")
    assert isinstance(model, OpenAIModel)
    assert model.serving.base_urls == ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1")
    assert (model.name, model.serving.served_name) == ("Qwen/QwQ-32B", "qwq")
    assert (model.serving.concurrency, model.serving.timeout_s) == (8, 60.0)


def test_open_served_model_answers(tmp_path: Path) -> None:
    with TeacherServer() as server:
        config = load_config(write(tmp_path, entry(base_url=f'"{server.url}"')))
        request = Request("a/b", (Message("user", "2+2?"),), Sampling())
        [(_, reply)] = config.open("a/b").complete([request])
    assert isinstance(reply, Completion)
    assert server.bodies[0]["model"] == "a/b"


def test_open_local_model_relative_to_the_file_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "weights")  # type: ignore[no-untyped-call]  # a helper of tests
    text = '[models."my/tiny"]\nengine = "local"\npath = "weights"\nthreads = 1\n'
    file = write(tmp_path, text)
    monkeypatch.chdir("/")
    config = load_config(file)
    request = Request("my/tiny", (Message("user", "2+2?"),), Sampling(max_tokens=4))
    [(_, reply)] = config.open("my/tiny").complete([request])
    assert isinstance(reply, Completion)
    assert config.check("my/tiny").ok


def test_open_local_directory_that_is_absent_says_so(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[models.x]\nengine = "local"\npath = "weights"\n'))
    with pytest.raises(ModelError, match=r"x: \S+/weights is not a directory"):
        config.open("x")


def test_open_embedded_model_missing_from_the_installation_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillroom.models.config._embedded_directory", lambda name: tmp_path / "no")
    with pytest.raises(SetupError, match="this installation lacks"):
        ModelsConfig({}).open("stillroom/teacher-1")


def test_describe_says_engine_and_place(tmp_path: Path) -> None:
    local = '[models.x]\nengine = "local"\npath = "."\n'
    config = load_config(write(tmp_path, SERVED + local))
    assert config.describe("Qwen/QwQ-32B") == (
        "openai at http://127.0.0.1:8000/v1, http://127.0.0.1:8001/v1 as qwq"
    )
    assert config.describe("x") == f"local, {tmp_path}"


# Prices


def test_prices_of_the_file_count(tmp_path: Path) -> None:
    price = load_config(write(tmp_path, SERVED)).prices("Qwen/QwQ-32B")
    assert price == Price(prompt=0.15, completion=0.6)
    assert price.usd(1_000_000, 2_000_000) == pytest.approx(1.35)


def test_prices_of_a_hosted_model_are_found_by_name(tmp_path: Path) -> None:
    text = '[models.gpt-4o-mini]\nengine = "openai"\nbase_url = "https://api.openai.com/v1"\n'
    price = load_config(write(tmp_path, text)).prices("gpt-4o-mini")
    assert price is not None
    assert 0 < price.prompt < price.completion < 10


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://10.0.0.3/v1", "http://gpu7/v1"]
)
def test_prices_of_a_model_on_own_machines_are_unknown(tmp_path: Path, url: str) -> None:
    text = f'[models.gpt-4o-mini]\nengine = "openai"\nbase_url = "{url}"\n'
    assert load_config(write(tmp_path, text)).prices("gpt-4o-mini") is None


def test_prices_of_an_unlisted_model_are_unknown(tmp_path: Path) -> None:
    text = entry(base_url='"https://example.org/v1"')
    assert load_config(write(tmp_path, text)).prices("a/b") is None


def test_prices_of_an_embedded_model_are_zero() -> None:
    assert ModelsConfig({}).prices("stillroom/teacher-1") == Price(prompt=0, completion=0)


# Checks


def test_check_reachable_server_is_ok(tmp_path: Path) -> None:
    with TeacherServer(models=["a/b"]) as server:
        config = load_config(write(tmp_path, entry(base_url=f'"{server.url}"')))
        assert config.check("a/b") == (True, f"a/b: openai at {server.url}", "")


def test_check_server_without_a_list_is_ok(tmp_path: Path) -> None:
    with TeacherServer() as server:
        assert load_config(write(tmp_path, entry(base_url=f'"{server.url}"'))).check("a/b").ok


def test_check_model_that_is_not_served_names_the_nearest(tmp_path: Path) -> None:
    with TeacherServer(models=["x/A-B", "a-b"]) as server:
        check = load_config(write(tmp_path, entry(base_url=f'"{server.url}"'))).check("a/b")
    assert not check.ok
    assert check.message.endswith("does not serve a/b; it serves x/A-B, a-b")
    assert check.what_to_do.endswith("Did you mean a-b?")


def test_check_unreachable_server_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    check = load_config(write(tmp_path, entry(base_url=f'"{url}"'))).check("a/b")
    assert not check.ok
    assert check.message.startswith(f"a/b: cannot reach {url}")
    assert check.what_to_do == "Start it, or correct base_url."


@pytest.mark.parametrize(
    ("value", "words"), [(None, "is not set"), ("wrong-key-0123", "refuses the key")]
)
def test_check_key_says_what_is_wrong_without_showing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, words: str
) -> None:
    if value:
        monkeypatch.setenv("TEACHER_KEY", value)
    with TeacherServer(models=["a/b"], api_key="right") as server:
        text = entry(base_url=f'"{server.url}"', api_key_env='"TEACHER_KEY"')
        check = load_config(write(tmp_path, text)).check("a/b")
    assert not check.ok
    assert words in check.message
    assert value is None or value not in "".join(map(str, check))


def test_check_unknown_model_says_so() -> None:
    assert not ModelsConfig({}).check("a/b").ok
