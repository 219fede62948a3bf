"""Where models are served: the user's file that maps frozen names to engines and addresses.

A recipe names models; this file says where they are. Nothing in it enters a key, so moving a model
to another server changes no artifact. Secrets are not in it either, only the names of the
environment variables that hold them.
"""

import difflib
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stillroom.errors import ModelError, SetupError
from stillroom.models.chat import ChatModel
from stillroom.models.keys import find_key
from stillroom.models.spending import NeverBuys

if TYPE_CHECKING:
    from stillroom.models.embeddings import Embedder
    from stillroom.models.endpoint import Endpoint
    from stillroom.models.likelihoods import Scorer
    from stillroom.models.openai import OpenAIModel

FILE_NAME = "models.toml"
EMBEDDED = ("stillroom/base-1", "stillroom/novice-1", "stillroom/teacher-1")

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class Price(BaseModel):
    """What tokens cost.

    Attributes:
        prompt: USD per million prompt tokens.
        completion: USD per million completion tokens, thinking included.
    """

    model_config = _STRICT

    prompt: float = Field(ge=0, allow_inf_nan=False)
    completion: float = Field(ge=0, allow_inf_nan=False)

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of so many tokens, in US dollars.

        >>> Price(prompt=0.15, completion=0.60).usd(2_000_000, 1_000_000)
        0.9
        """
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not shown: what is there may be a secret.
        raise ValueError(
            "hidden: it holds more than an address; "
            "an address without user, password, query or fragment"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def _checked_env(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError(
            "hidden: it is not such a name; "
            "the name of an environment variable in capitals, such as OPENAI_API_KEY, "
            "not the key itself"
        )
    return name


class OpenAIEntry(BaseModel):
    """A model behind one or more OpenAI-compatible servers.

    Attributes:
        engine: ``openai``.
        base_url: Address up to and with ``/v1``, or a list of them.
        served_name: What the servers call the model, if not by its frozen name.
        api_key_env: Name of the key: an environment variable, or a line ``NAME=value`` in
            ``~/.config/stillroom/keys.env``, which only you may read.
        concurrency: Draws in flight at most, per server; how many are best is found out below it.
        choices: Draws of one question in one call, at most, where the server takes ``n``: they
            share the prompt, but a killed run loses all of a call.
        requests_per_minute: Calls per minute at most, over all of the servers.
        tokens_per_minute: Tokens per minute at most, prompts and completions together.
        timeout_s: Seconds that one call may take.
        patience_s: Seconds that a request waits for a rate limit to pass before it is given up.
        outage_s: Seconds without an answer from any of the servers after which a run stops.
        starts_in_thinking: Whether the chat template ends in ``<think>`` and the server does not
            split the reasoning off.
        price: What tokens cost; looked up by name for hosted models when left out.
        tokens_per_s: Completion tokens per second of all these servers together, for plans.
        usd_per_h: What they cost per hour, all GPUs together; with ``tokens_per_s`` it gives the
            price of a token, where ``price`` is left out.
    """

    model_config = _STRICT

    engine: Literal["openai"]
    base_url: Annotated[tuple[str, ...], Field(min_length=1)]
    served_name: str | None = Field(default=None, min_length=1)
    api_key_env: str | None = None
    concurrency: int = Field(default=256, ge=1, le=100_000)
    choices: int = Field(default=1, ge=1, le=128)
    requests_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tokens_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    timeout_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    patience_s: float = Field(default=900.0, gt=0, allow_inf_nan=False)
    outage_s: float = Field(default=300.0, gt=0, allow_inf_nan=False)
    starts_in_thinking: bool = False
    price: Price | None = None
    tokens_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    usd_per_h: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    @field_validator("base_url", mode="before")
    @classmethod
    def _read_urls(cls, value: object) -> object:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @field_validator("base_url")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked(url) for url in urls)

    @field_validator("api_key_env")
    @classmethod
    def _check_env(cls, name: str | None) -> str | None:
        return _checked_env(name)


_PLANNING = {"price", "tokens_per_s", "usd_per_h"}
_TREATMENT = set(OpenAIEntry.model_fields) - {"engine", "base_url", *_PLANNING}


class LocalEntry(BaseModel):
    """A model that runs in this process, on the CPU.

    Attributes:
        engine: ``local``.
        path: Directory of the model, in Hugging Face form; relative to the file that names it.
        threads: CPU threads; all when left out.
    """

    model_config = _STRICT

    engine: Literal["local"]
    path: Annotated[Path, Field(strict=False)]
    threads: int | None = Field(default=None, ge=1)


class ReplayEntry(BaseModel):
    """A model that is no longer asked: only the ledger answers for it.

    Attributes:
        engine: ``replay``.
    """

    model_config = _STRICT

    engine: Literal["replay"]


class BatchEntry(BaseModel):
    """A model behind a provider's batch API: half the price, and an answer within a day.

    Attributes:
        engine: ``openai-batch`` or ``anthropic-batch``.
        base_url: Address up to and with ``/v1``.
        served_name: What the provider calls the model, if not by its frozen name.
        api_key_env: Name of the key, as for ``openai``.
        size: Requests per batch, at most.
        poll_s: Seconds between looks at a batch.
        price: What tokens cost in batches; half the listed price when left out.
    """

    model_config = _STRICT

    engine: Literal["openai-batch", "anthropic-batch"]
    base_url: str
    served_name: str | None = Field(default=None, min_length=1)
    api_key_env: str | None = None
    size: int = Field(default=10_000, ge=1, le=50_000)
    poll_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    price: Price | None = None

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        return _checked(url)

    @field_validator("api_key_env")
    @classmethod
    def _check_env(cls, name: str | None) -> str | None:
        return _checked_env(name)


AnyEntry = OpenAIEntry | LocalEntry | ReplayEntry | BatchEntry
Entry = Annotated[AnyEntry, Field(discriminator="engine")]
ENGINES: Mapping[str, type[BaseModel]] = {
    "openai": OpenAIEntry, "local": LocalEntry, "openai-batch": BatchEntry,
    "anthropic-batch": BatchEntry, "replay": ReplayEntry,
}  # fmt: skip


class StudentsEntry(BaseModel):
    """How trained models are asked while they are graded; the table ``[students]``.

    Attributes:
        engine: ``local`` (in this process, on the CPU), ``vllm`` or ``sglang``: servers that are
            started for each model and ended after it. When left out, ``local`` for models that the
            local engine can run and whose weights take 2 GiB at most, and ``vllm`` for all others.
        executable: Command that stands for the program, as a list; its usual one when left out.
        servers: How many, each a full copy of the model.
        gpus_each: GPUs of one server, which split the model between them.
        context: Tokens of prompt and completion together; the model's own limit when left out.
        memory_share: Share of a GPU's memory that a server takes, above 0 and up to 1.
        concurrency: Draws in flight at most, per server; how many are best is found out below it.
        start_timeout_s: Seconds that a server may take to become healthy.
        arguments: Further arguments of the program.
    """

    model_config = _STRICT

    engine: Literal["local", "vllm", "sglang"] | None = None
    executable: Annotated[tuple[str, ...], Field(strict=False)] = ()
    servers: int = Field(default=1, ge=1, le=64)
    gpus_each: int = Field(default=1, ge=1, le=64)
    context: int | None = Field(default=None, ge=1)
    memory_share: float = Field(default=0.9, gt=0, le=1, allow_inf_nan=False)
    concurrency: int = Field(default=256, ge=1, le=100_000)
    start_timeout_s: float = Field(default=1800.0, gt=0, allow_inf_nan=False)
    arguments: Annotated[tuple[str, ...], Field(strict=False)] = ()


class _File(BaseModel):
    model_config = _STRICT

    models: dict[str, Entry] = Field(default_factory=dict)
    students: StudentsEntry | None = None


class Check(NamedTuple):
    """What a cheap look at a model found.

    Attributes:
        ok: Whether it can be asked.
        message: What was found.
        what_to_do: Empty when all is well.
    """

    ok: bool
    message: str
    what_to_do: str = ""


class ModelsConfig:
    """The models that can be opened: those of one file, and those that come with the package.

    Attributes:
        file: Where this was read, if anywhere.
        students: How trained models are asked, if the file says so.
    """

    def __init__(
        self,
        entries: Mapping[str, AnyEntry],
        file: Path | None = None,
        students: StudentsEntry | None = None,
    ):
        """Hold entries by frozen name; a relative path in them is relative to the file."""
        self.file = file
        self.students = students
        self._entries = dict(entries)
        self._lent: dict[str, Callable[[], ChatModel]] = {}

    def plus(self, directories: Mapping[str, Path]) -> "ModelsConfig":
        """Return these models and some local directories, by frozen name."""
        more = {
            name: LocalEntry(engine="local", path=path.absolute())
            for name, path in directories.items()
        }
        return ModelsConfig({**self._entries, **more}, self.file, self.students)

    def lent(self, name: str, opened: Callable[[], ChatModel]) -> "ModelsConfig":
        """Return these models and one of this machine, which somebody else opens.

        Args:
            name: Its frozen name.
            opened: Called each time that it is opened.
        """
        more = self.plus({name: Path(name)})
        more._lent[name] = opened
        return more

    def directory(self, name: str) -> Path:
        """Return the directory of a local model, such as a base model to train.

        Raises:
            ModelError: If there is no such model, or it is served elsewhere.
        """
        entry = self._entry(name)
        if isinstance(entry, LocalEntry):
            return self._directory(name, entry)
        raise ModelError(
            f"{name}: {self.describe(name)}; expected a local directory to train "
            f'from. Add it to {self.file or FILE_NAME} with engine = "local".'
        )

    def own_directory(self, name: str) -> Path | None:
        """Return the directory of a local model that the file names; None if there is none."""
        entry = self._entries.get(name)
        if not isinstance(entry, LocalEntry):
            return None
        path = (self.file.parent if self.file else Path()) / entry.path.expanduser()
        return path if path.is_dir() else None

    def known(self) -> list[str]:
        """Return the names that can be opened, sorted."""
        return sorted({*self._entries, *EMBEDDED})

    def open(self, name: str) -> ChatModel:
        """Return the model behind its door; nothing is sent yet.

        Raises:
            ModelError: If no such model is configured, or its directory does not exist.
            SetupError: If this installation lacks the engine or the embedded model.
        """
        if name in self._lent:
            return self._lent[name]()
        entry = self._entry(name)
        if isinstance(entry, LocalEntry):
            return _open_local(self._directory(name, entry), name=name, threads=entry.threads)
        if isinstance(entry, ReplayEntry):
            return NeverBuys(name)
        if isinstance(entry, BatchEntry):
            return _batches(name, entry)
        return _server(name, entry)

    def embedder(self, name: str) -> "Embedder":
        """Return the embedder behind its door; nothing is sent yet.

        Raises:
            ModelError: If no such model is configured, or it makes no vectors.
        """
        from stillroom.models.embeddings import NGRAMS, NgramEmbedder, ServedEmbedder

        if name == NGRAMS:
            return NgramEmbedder()
        entry = self._entry(name)
        if not isinstance(entry, OpenAIEntry):
            raise ModelError(
                f"{name}: the {entry.engine} engine makes no vectors; expected an "
                f"OpenAI-compatible embeddings server, or {NGRAMS}. Name another in the recipe."
            )
        return ServedEmbedder(
            self._endpoint(name, entry, "/embeddings", "vectors"),
            concurrency=min(entry.concurrency, 8),
        )

    def scorer(self, name: str) -> "Scorer":
        """Return what tells how likely a model takes texts to be; nothing is sent yet.

        Raises:
            ModelError: If no such model is configured, or it scores no texts.
        """
        from stillroom.models.likelihoods import LocalScorer, ServedScorer
        from stillroom.models.local.engine import LocalModel

        entry = self._entry(name)
        if isinstance(entry, OpenAIEntry):
            endpoint = self._endpoint(name, entry, "/completions", "scores")
            return ServedScorer(endpoint, concurrency=entry.concurrency)
        model = self.open(name)
        if not isinstance(model, LocalModel):
            raise ModelError(
                f"{name}: the {entry.engine} engine does not tell how likely a text is; expected a "
                "local model, or a server that scores prompts. Name another in the recipe."
            )
        return LocalScorer(model.checkpoint, name=name, threads=model.threads)

    def _endpoint(self, name: str, entry: OpenAIEntry, path: str, gives: str) -> "Endpoint":
        from stillroom.models.endpoint import Endpoint

        return Endpoint(
            name, entry.base_url, path, gives, served_name=entry.served_name or name,
            api_key_env=entry.api_key_env, timeout_s=entry.timeout_s,
        )  # fmt: skip

    def describe(self, name: str) -> str:
        """Say which engine serves a model and where, without secrets.

        Raises:
            ModelError: If no such model is configured.
        """
        entry = self._entry(name)
        if isinstance(entry, OpenAIEntry):
            served = f" as {entry.served_name}" if entry.served_name else ""
            return f"openai at {', '.join(entry.base_url)}{served}"
        if isinstance(entry, BatchEntry):
            return f"{entry.engine} at {entry.base_url}"
        if isinstance(entry, ReplayEntry):
            return "replay: only the ledger answers"
        where = "embedded" if name not in self._entries else str(self._directory(name, entry))
        return f"local, {where}"

    def prices(self, name: str) -> Price | None:
        """Return what a model's tokens cost; None when that is not known.

        The file's price counts; then, for servers on the internet, the price list of
        genai-prices. Local models cost nothing per token. A model that nobody serves yet can be
        planned with all the same.
        """
        if name not in self.known():
            return None
        entry = self._entry(name)
        if isinstance(entry, LocalEntry):
            return Price(prompt=0.0, completion=0.0)
        if isinstance(entry, ReplayEntry):
            return None
        if isinstance(entry, BatchEntry):
            listed = entry.price or _listed_price(entry.served_name or name, (entry.base_url,))
            if entry.price or listed is None:
                return listed
            return Price(prompt=listed.prompt / 2, completion=listed.completion / 2)
        if entry.price is None and entry.usd_per_h is not None and entry.tokens_per_s:
            # Prompts are read while others are answered, so their cost is in that speed.
            each = entry.usd_per_h / 3600 / entry.tokens_per_s
            return Price(prompt=0.0, completion=each * 1e6)
        return entry.price or _listed_price(entry.served_name or name, entry.base_url)

    def speed(self, name: str) -> float | None:
        """Return how many completion tokens a second its servers give; None if nobody said."""
        entry = self._entries.get(name)
        return entry.tokens_per_s if isinstance(entry, OpenAIEntry) else None

    def check(self, name: str) -> Check:
        """Look whether a model could be asked, without paying for a completion."""
        try:
            entry = self._entry(name)
            if isinstance(entry, LocalEntry):
                self._directory(name, entry)
                _local_engine()
                return Check(True, f"{name}: {self.describe(name)}")
            if isinstance(entry, BatchEntry):
                _key_of(name, entry)
            if isinstance(entry, ReplayEntry | BatchEntry):
                return Check(True, f"{name}: {self.describe(name)}")
            served = entry.served_name or name
            for url, models in _server(name, entry).served_models().items():
                if models is not None and served not in models:
                    return Check(
                        False,
                        f"{name}: {url} does not serve {served}; it serves {_some(models)}",
                        f"Set served_name of {name} in {self.file or FILE_NAME}."
                        + _nearest(served, models),
                    )
            return Check(True, f"{name}: {self.describe(name)}")
        except (ModelError, SetupError) as error:
            found, _, rest = str(error).partition("; expected ")
            expected, _, what_to_do = rest.partition(". ")
            return Check(False, f"{found}; expected {expected}", what_to_do)

    def _entry(self, name: str) -> AnyEntry:
        if name in self._entries:
            return self._entries[name]
        if name in EMBEDDED:
            return LocalEntry(engine="local", path=_embedded_directory(name))
        where = self.file or f"{FILE_NAME}, as docs/reference-models.md shows"
        raise ModelError(
            f"{name}: no such model; configured models are {', '.join(self.known())}. "
            f"Add it to {where}.{_nearest(name, self.known())}"
        )

    def _directory(self, name: str, entry: LocalEntry) -> Path:
        base = self.file.parent if self.file else Path()
        path = base / entry.path.expanduser()
        if path.is_dir():
            return path
        if name not in self._entries:
            raise SetupError(
                f"{name}: this installation lacks {path.name}; expected the embedded model inside "
                "the package. Install stillroom again."
            )
        raise ModelError(
            f"{name}: {path} is not a directory; expected a model in Hugging Face form. "
            f"Correct path in {self.file or FILE_NAME}."
        )


def load_config(path: Path | str | None = None) -> ModelsConfig:
    """Read where models are served.

    The first of these counts: the path given; the file that ``$STILLROOM_MODELS`` names;
    ``models.toml`` in the working directory; ``~/.config/stillroom/models.toml``. Without any of
    them there are the embedded models.

    Raises:
        ModelError: If the file cannot be read or says something that cannot be done.
    """
    file = _find(path)
    if file is None:
        return ModelsConfig({})
    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ModelError(
            f"{file}: cannot be read ({error.strerror}); expected a file that says where models "
            "are served. Write it, or name another."
        ) from error
    except ValueError as error:  # TOML and UTF-8 alike
        raise ModelError(f"{file}: {error}; expected TOML. Correct that place.") from None
    try:
        read = _File.model_validate(content)
        return ModelsConfig(read.models, file, read.students)
    except ValidationError as error:
        raise ModelError("\n".join(f"{file}: {_say(item)}" for item in error.errors())) from None


def _find(path: Path | str | None) -> Path | None:
    if path is not None:
        return Path(path)
    if named := os.environ.get("STILLROOM_MODELS"):
        return Path(named)
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    usual = (Path(FILE_NAME), settings / "stillroom" / FILE_NAME)
    return next((file for file in usual if file.is_file()), None)


def _say(item: Any) -> str:
    """Put one validation error of pydantic into our form."""
    # pydantic puts the engine between the model's name and its keys.
    *place, last = where = [str(part) for i, part in enumerate(item["loc"]) if i != 2]
    key = _dotted(where)
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        # The value is not shown: it may be a key that was put into the wrong place.
        names = _fields(place, item["loc"])
        here = _dotted(place) or "the top level"
        return (
            f"{here} has a key {last}, which means nothing; expected some of {', '.join(names)}. "
            f"Correct or remove it.{_nearest(last, names)}"
        )
    if kind in ("missing", "union_tag_not_found"):
        missing = key if kind == "missing" else f"{key}.engine"
        return f"{missing} is missing; expected a value. Add it."
    if kind == "union_tag_invalid":
        tag = str(value.get("engine"))
        return (
            f"{key}.engine is {tag}; expected one of {', '.join(ENGINES)}. "
            f"Correct it.{_nearest(tag, ENGINES)}"
        )
    if kind == "value_error":
        words = str(item["ctx"]["error"])
        if words.startswith("hidden: "):
            found, _, expected = words.removeprefix("hidden: ").partition("; ")
            return f"{key} is not shown here, for {found}; expected {expected}. Correct it."
        return f"{key} is {_shown(value)}; expected {words}. Correct it."
    if kind == "path_type":
        return f"{key} is {_shown(value)}; expected a path. Correct it."
    expected = item["msg"].removeprefix("Input should be ").replace("Input should ", "to ")
    return f"{key} is {_shown(value)}; expected {expected}. Correct it."


def _fields(place: list[str], loc: tuple[Any, ...]) -> list[str]:
    if not place:
        return list(_File.model_fields)
    if place[0] == "students":
        return list(StudentsEntry.model_fields)
    if place[-1] == "price":
        return list(Price.model_fields)
    return list(ENGINES[loc[2]].model_fields)


def _dotted(parts: list[str]) -> str:
    return ".".join(p if p.replace("_", "").isalnum() else json.dumps(p) for p in parts)


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(name: str, names: Iterable[str]) -> str:
    """Return " Did you mean X?", or nothing when no name is near."""
    lower = {other.lower(): other for other in names}
    short = {other.rpartition("/")[2]: full for other, full in lower.items()}
    known = {**short, **lower}
    near = difflib.get_close_matches(name.lower(), known, n=1)
    return f" Did you mean {known[near[0]]}?" if near else ""


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _server(name: str, entry: OpenAIEntry) -> "OpenAIModel":
    from stillroom.models.openai import OpenAIModel  # aiohttp takes a quarter second to load

    return OpenAIModel(
        name,
        entry.base_url,
        **entry.model_dump(include=_TREATMENT),
    )


def _batches(name: str, entry: BatchEntry) -> ChatModel:
    from stillroom.models.batch.http import Http
    from stillroom.models.batch.model import BatchModel
    from stillroom.models.batch.protocols import AnthropicBatches, OpenAIBatches

    key, served = _key_of(name, entry), entry.served_name or name
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    settings: dict[str, Any] = {"size": entry.size, "poll_s": entry.poll_s}
    folder = state / "stillroom" / "batches"
    if entry.engine == "openai-batch":
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        http = Http(name, entry.base_url, headers)
        return BatchModel(name, OpenAIBatches(http, served), folder, **settings)
    headers = {"anthropic-version": "2023-06-01", **({"x-api-key": key} if key else {})}
    protocol = AnthropicBatches(Http(name, entry.base_url, headers), served)
    return BatchModel(name, protocol, folder, needs_limit=True, **settings)


def _key_of(name: str, entry: BatchEntry) -> str | None:
    if entry.api_key_env is None:
        return None
    return find_key(entry.api_key_env, where=name, what_for=entry.base_url)


def _embedded_directory(name: str) -> Path:
    return Path(__file__).parent / "embedded" / name.removeprefix("stillroom/")


def _local_engine() -> Any:
    try:
        from stillroom.models.local.engine import LocalModel
    except ImportError as error:
        raise SetupError(
            f"stillroom: the local engine cannot be loaded ({error}); expected it inside the "
            "package. Install stillroom again."
        ) from error
    return LocalModel


def _open_local(directory: Path, *, name: str, threads: int | None) -> ChatModel:
    model: ChatModel = _local_engine()(directory, name=name, threads=threads)
    return model


def _listed_price(name: str, base_urls: tuple[str, ...]) -> Price | None:
    if any(_is_private(url) for url in base_urls):
        return None  # a hosted price would be wrong for someone's own machine
    from genai_prices import Usage, calc_price  # as slow to load

    tokens = Usage(input_tokens=1000, output_tokens=1000)
    for address in (base_urls[0], None):
        try:
            found = calc_price(tokens, model_ref=name, provider_api_url=address)
        except LookupError:
            continue
        return Price(
            prompt=float(found.input_price * 1000), completion=float(found.output_price * 1000)
        )
    return None


def _is_private(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal"))
