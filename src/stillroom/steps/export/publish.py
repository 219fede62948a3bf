"""Push a finished dataset to the Hugging Face hub.

What is covered: a torn or edited dataset, and rows whose licence forbids passing them on, never
leave; files of an older version that the dataset no longer has are removed from the hub. What is
not: whether the conditions of an open licence are met.

The token is read by the hub's own client, from ``HF_TOKEN`` or from ``hf auth login``; it is never
printed and never stored.
"""

from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import ExportError
from stillroom.steps.export.licences import hub_name, objection
from stillroom.steps.export.record import RECORD, Licensed, Record


def publish(
    folder: Path,
    repo: str,
    *,
    private: bool,
    allow_licences: bool = False,
    endpoint: str | None = None,
) -> str:
    """Push a dataset folder to a dataset repository, in one commit.

    Args:
        folder: What `write_dataset` wrote.
        repo: ``owner/name``; made if it is not there.
        private: Whether a new repository is private. One that is there stays as it is.
        allow_licences: Push although the licence of some rows forbids it, or is unknown.
        endpoint: Address of the hub; None for ``HF_ENDPOINT`` or the public one.

    Returns:
        The address of the dataset.

    Raises:
        ExportError: If the folder is not a whole dataset, a licence forbids it, or the hub refuses.
    """
    record = Record.read(folder)
    if record is None:
        raise ExportError(f"{folder}: no dataset is there; expected one. Run its recipe first.")
    changed = list(record.changed(folder))
    if changed:
        raise ExportError(
            f"{folder}: {'; '.join(changed[:5])}; expected the files that {RECORD} lists. The "
            "dataset is torn or was edited: delete the folder and run its recipe again."
        )
    if not allow_licences:
        _check_licences(folder, record.licences)
    return _push(folder, repo, record, private=private, endpoint=endpoint)


def _check_licences(folder: Path, licences: Sequence[Licensed]) -> None:
    refused = [(entry, reason) for entry in licences if (reason := objection(entry.licence))]
    if not refused:
        return
    rows = sum(entry.rows for entry, _ in refused)
    words = [
        f"{entry.source or 'a source without a name'} ({entry.rows:,} rows, licence "
        f"{hub_name(entry.licence)}, which {reason})"
        for entry, reason in sorted(refused, key=lambda pair: -pair[0].rows)[:5]
    ]
    more = f", and {len(refused) - 5:,} more" if refused[5:] else ""
    raise ExportError(
        f"{folder}: {rows:,} rows may not be published: {', '.join(words)}{more}; expected "
        "licences that let anyone pass rows on. Drop these sources from the recipe, state their "
        "licence there if it is known, or pass --allow-licences if you have leave to publish them."
    )


def _push(folder: Path, repo: str, record: Record, *, private: bool, endpoint: str | None) -> str:
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise ExportError(
            f"hub {repo}: no token; expected one that may write. Set HF_TOKEN, or run "
            "`hf auth login`."
        )
    api = HfApi(endpoint=endpoint)
    try:
        url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=url.repo_id,
            repo_type="dataset",
            allow_patterns=[RECORD, *(file.name for file in record.files)],
            delete_patterns=["data/train-*.parquet", "data/train-*.jsonl", "lengths.svg"],
            commit_message=f"{record.name}: {record.rows:,} rows, dataset {record.digest[:16]}",
        )
    except Exception as failure:  # the hub's client raises errors of several libraries
        error: BaseException = failure
        while error.__cause__ is not None:  # "Error while uploading", which does not say why
            error = error.__cause__
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise ExportError(f"hub {repo}: {_refusal(status, error, token)}") from None
    return str(url)


def _refusal(status: int | None, error: BaseException, token: str) -> str:
    if status == 401:
        return (
            "the hub does not know the token (401); expected one that may write. Set HF_TOKEN "
            "anew, or run `hf auth login`."
        )
    if status == 403:
        return (
            "the token may not write there (403); expected one that may. Check the owner's name "
            "and the token's rights."
        )
    words = (str(error) or "no message").splitlines()[0].replace(token, "***")
    return (
        f"cannot be written ({type(error).__name__}: {words}). Nothing is half published: a "
        "commit counts as a whole. Check the network and the name, and publish again."
    )
