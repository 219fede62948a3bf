"""`serve local`."""

from pathlib import Path

import click

from stillroom.errors import ModelError
from stillroom.models.config import load_config
from stillroom.models.local.engine import LocalModel
from stillroom.models.local.serve import serve as serve_model


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
