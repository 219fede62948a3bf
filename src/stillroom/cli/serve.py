"""`serve local`, `serve vllm` and `serve sglang`."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from stillroom.cli.runtime import stop_on_terminate
from stillroom.errors import ModelError
from stillroom.models.config import load_config
from stillroom.models.local.engine import LocalModel
from stillroom.models.local.serve import serve as serve_model
from stillroom.models.supervise import Launch, Patience, Program, Supervisor, models_toml

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def serve() -> None:
    """Serve a model as an OpenAI-compatible server."""


@serve.command()
@click.argument("model", default="stillroom/teacher-1")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535),
              help="Port to listen on; 0 takes a free one.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=None, show_default="cores",
              help="Threads that compute.")  # fmt: skip
@click.option(
    "--reasoning", type=click.Choice(["reasoning", "reasoning_content", "tags"]),
    default="reasoning", show_default=True,
    help="Field of the thinking; `tags` leaves it in the text.",
)  # fmt: skip
@click.option("--models", "models_path", type=click.Path(path_type=Path), default=None,
              help="Where models are served (models.toml).")  # fmt: skip
def local(
    model: str,
    host: str,
    port: int,
    threads: int | None,
    reasoning: str,
    models_path: Path | None,
) -> None:
    """Serve MODEL from this process: a folder in Hugging Face form, or the name of a local model.

    Chat completions with n, streaming, usage and reasoning; many requests share each step of the
    one engine. Stop it with Ctrl-C.
    """
    opened = (
        LocalModel(Path(model), name=Path(model).name, threads=threads)
        if Path(model).is_dir()
        else load_config(models_path).open(model)
    )
    if not isinstance(opened, LocalModel):
        raise ModelError(
            f"{model}: served elsewhere, by models.toml; expected a local model or a folder. "
            "Ask its server directly."
        )
    serve_model(
        opened, host, port,
        reasoning=reasoning,  # type: ignore[arg-type]  # click.Choice gives one of the names
        ready=lambda url: click.echo(f"{opened.name} at {url}; stop with Ctrl-C"),
    )  # fmt: skip


def _launch_options(function: F) -> F:
    """Add the options of servers that run as other programs."""
    options = [
        click.argument("model"),
        click.option("--servers", default=1, show_default=True, type=click.IntRange(1, 64),
                     help="How many, each a full copy of the model."),
        click.option("--gpus-each", default=1, show_default=True, type=click.IntRange(1, 64),
                     help="GPUs of one server, which split the model between them."),
        click.option("--context", type=click.IntRange(min=1), default=None,
                     show_default="the model's", help="Tokens of prompt and completion together."),
        click.option("--memory-share", default=0.9, show_default=True,
                     type=click.FloatRange(0, 1, min_open=True),
                     help="Share of a GPU's memory to take."),
        click.option("--reasoning-parser", default=None,
                     help="The program's parser that splits thinking off, such as deepseek_r1."),
        click.option("--host", default="127.0.0.1", show_default=True,
                     help="Address to listen on."),
        click.option("--executable", default=None, metavar="COMMAND",
                     help="Command that stands for the program."),
        click.option("--logs", type=click.Path(path_type=Path), default=Path("serve-logs"),
                     show_default=True, help="Folder of what the servers say."),
        click.option("--restarts", default=3, show_default=True, type=click.IntRange(min=0),
                     help="Times that a server may be started again within half an hour."),
        click.option("--start-timeout", default=1800.0, show_default=True,
                     type=click.FloatRange(0, min_open=True),
                     help="Seconds that a server may take to become healthy."),
        click.option("--write", type=click.Path(path_type=Path), default=None, metavar="FILE",
                     help="Write the lines for models.toml to a new file."),
        click.option("--dry-run", is_flag=True, help="Print the commands, and start nothing."),
        click.argument("more", nargs=-1, type=click.UNPROCESSED),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@serve.command()
@_launch_options
def vllm(**options: Any) -> None:
    """Start and look after vLLM servers of MODEL; what stands after -- goes to vLLM.

    A server that crashes is started again. Ctrl-C ends all of them.
    """
    _supervise("vllm", **options)


@serve.command()
@_launch_options
def sglang(**options: Any) -> None:
    """Start and look after SGLang servers of MODEL; what stands after -- goes to SGLang.

    A server that crashes is started again. Ctrl-C ends all of them.
    """
    _supervise("sglang", **options)


def _supervise(
    program: Program,
    *,
    executable: str | None,
    logs: Path,
    restarts: int,
    start_timeout: float,
    write: Path | None,
    dry_run: bool,
    **fields: Any,
) -> None:
    launch = Launch(program, executable=tuple(shlex.split(executable or "")), **fields)
    if write and write.exists():
        raise ModelError(f"{write}: is there already; expected a new file. Name another.")
    patience = Patience(start_s=start_timeout, restarts=restarts)
    supervisor = Supervisor(
        launch, logs, patience=patience, say=lambda line: click.echo(line, err=True)
    )
    lines = models_toml(launch.model, supervisor.urls)
    if dry_run:
        click.echo("\n".join([*supervisor.commands(), "", lines]), nl=False)
        return

    def ready() -> None:
        if write:
            write.write_text(lines, encoding="utf-8")
        click.echo(lines, nl=False)
        click.echo(f"{launch.servers} of {launch.servers} servers are healthy; stop with Ctrl-C")

    with stop_on_terminate():
        supervisor.run(ready)
