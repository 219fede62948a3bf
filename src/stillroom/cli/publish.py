"""`publish`."""

from pathlib import Path

import click

from stillroom.steps.export.publish import publish as publish_folder


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("repo")
@click.option("--public", is_flag=True, help="Make the repository public; private by default.")
@click.option(
    "--allow-licences", is_flag=True,
    help="Publish although a source's licence forbids it or is unknown. Yours to answer for.",
)  # fmt: skip
def publish(folder: Path, repo: str, public: bool, allow_licences: bool) -> None:
    """Push the dataset in FOLDER to REPO (owner/name) on the Hugging Face hub.

    The token comes from HF_TOKEN or from `hf auth login`. Files are checked against their digests
    before they leave.
    """
    url = publish_folder(folder, repo, private=not public, allow_licences=allow_licences)
    click.echo(f"Published {folder} to {url}")
