"""Where a trained model is asked while it is graded: in this process, or by servers of its own.

A small model runs in the local engine. A large one is served by vLLM or SGLang, whose servers start
when it is first asked and end with the sitting; grades that are there already start none.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stillroom.errors import ModelError
from stillroom.models.chat import ChatModel
from stillroom.models.config import ModelsConfig, OpenAIEntry, Price, StudentsEntry
from stillroom.models.local.checkpoint import can_run, opens_thinking
from stillroom.models.supervise import Launch, Patience, Supervisor

LARGEST_LOCAL_BYTES = 2 << 30
"""Weights of a model that is graded on the CPU unless models.toml says otherwise."""

# What a request leaves out must not be filled in from the model's generation_config.json.
_NEUTRAL = {
    "vllm": ("--generation-config", "vllm"),
    "sglang": ("--sampling-defaults", "openai"),
}


@contextmanager
def hosted(
    models: ModelsConfig, name: str, directory: Callable[[], Path], logs: Path
) -> Iterator[ModelsConfig]:
    """Add a model to those that can be asked.

    Args:
        models: Where all others are served, and how students are to be.
        name: Frozen name of the model.
        directory: Returns the folder of its weights.
        logs: Folder of what its servers say.

    Raises:
        SetupError: If it is asked, and the program that should serve it is missing.
        ModelError: If its servers do not start, or end too often.
    """
    with ExitStack() as stack:
        urls: list[str] = []

        def opened() -> ChatModel:
            folder = directory()
            launch = launch_of(folder, models.students)
            if launch is None:
                return models.plus({name: folder}).open(name)
            if not urls:
                patience = Patience(start_s=(models.students or _USUAL).start_timeout_s)
                supervisor = Supervisor(launch, logs, patience=patience)
                urls.extend(stack.enter_context(supervisor.healthy()))
            served = OpenAIEntry(
                engine="openai",
                base_url=tuple(urls),
                served_name=launch.model,
                concurrency=(models.students or _USUAL).concurrency,
                starts_in_thinking=opens_thinking(folder),
                price=Price(prompt=0.0, completion=0.0),
            )
            return ModelsConfig({name: served}).open(name)

        yield models.lent(name, opened)


def launch_of(directory: Path, students: StudentsEntry | None) -> Launch | None:
    """Return what to start so that a model can be asked; None if it runs in this process.

    Args:
        directory: The folder of its weights.
        students: What models.toml says, if it says anything.
    """
    entry = students or _USUAL
    engine = entry.engine or ("local" if _is_small(directory) else "vllm")
    if engine == "local":
        return None
    return Launch(
        engine,
        str(directory.resolve()),
        executable=entry.executable,
        servers=entry.servers,
        gpus_each=entry.gpus_each,
        context=entry.context,
        memory_share=entry.memory_share,
        more=(*_NEUTRAL[engine], *entry.arguments),
    )


def _is_small(directory: Path) -> bool:
    weights = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    if weights > LARGEST_LOCAL_BYTES:
        return False
    try:
        can_run(directory)
    except ModelError:
        return False
    return True


_USUAL = StudentsEntry()
