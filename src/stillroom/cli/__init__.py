"""The command line: one module per group of verbs, and no logic of its own."""

import importlib
import sys
from typing import Any

import click

from stillroom import __version__
from stillroom.errors import StillroomError

VERBS = {
    "run": ("stillroom.cli.run", "Make a dataset from a recipe."),
    "plan": ("stillroom.cli.run", "Say what a run or a study would do, buy and reuse, and why."),
    "study": ("stillroom.cli.study", "Compare recipes: train students, grade them, report."),
    "search": ("stillroom.cli.search", "Run studies in order; winners go into the next."),
    "promote": ("stillroom.cli.search", "Make an arm the recipe; open held-out benchmarks."),
    "eval": ("stillroom.cli.evaluate", "Grade a model on benchmarks."),
    "ls": ("stillroom.cli.look", "List the steps of a recipe and what they hold."),
    "show": ("stillroom.cli.look", "Print rows, as they stood after a step."),
    "why": ("stillroom.cli.look", "Tell the whole story of a row."),
    "contamination": ("stillroom.cli.contamination", "Report which benchmarks a dataset asks."),
    "publish": ("stillroom.cli.publish", "Push a dataset folder to the Hugging Face hub."),
    "serve": ("stillroom.cli.serve", "Serve a model as an OpenAI-compatible server."),
    "fake-teacher": ("stillroom.cli.fake_teacher", "Serve a teacher that fails by script."),
    "ledger": ("stillroom.cli.ledger", "Look after the answers that were paid for."),
    "gc": ("stillroom.cli.upkeep", "Free what no recipe refers to."),
    "doctor": ("stillroom.cli.upkeep", "Check the machine, the models and the store."),
    "schema": ("stillroom.cli.upkeep", "Print the JSON Schema of recipes."),
}
"""Verb to the module that holds it, and its help: so that `--help` imports nothing heavy."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(VERBS[name][0])
        command: click.Command = getattr(
            module, "evaluate" if name == "eval" else name.replace("-", "_")
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Stillroom distils reasoning datasets by recipe."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; a user's mistake ends in one message and exit status 1.

    Interrupts end with status 130 and say how to go on.
    """
    try:
        return cli.main(arguments, standalone_mode=False)
    except click.exceptions.Abort:
        click.echo(
            "\nStopped. What was finished and paid for is kept; "
            "the same command goes on from here.",
            err=True,
        )
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except StillroomError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a disk, a path or a right that no step expected to fail
        click.echo(
            f"{error.filename or 'stillroom'}: {error.strerror or error}. "
            "What was finished before is kept; mend this and run again.",
            err=True,
        )
        sys.exit(1)
