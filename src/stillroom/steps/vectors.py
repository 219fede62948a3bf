"""Embedding the texts of a table: what the steps share that compare by vectors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from stillroom.models.embeddings import NGRAMS, Embedder, embed_all
from stillroom.models.vectors import Vectors, vector_key
from stillroom.steps.asking import bound, role
from stillroom.steps.base import Calls, ModelSpec, Runtime


def embedder_role(model: str | ModelSpec, models: Mapping[str, ModelSpec], where: str) -> ModelSpec:
    """Return the embedder that plays a role; the one of the package goes by its own name.

    Only its name is kept: how a model samples says nothing about its vectors.

    Raises:
        Misfit: If the recipe has no such role.
    """
    if model == NGRAMS:
        return ModelSpec(name=NGRAMS)
    return ModelSpec(name=role(model, models, where).name)


def embed(
    texts: Iterable[str], model: str | ModelSpec, rt: Runtime
) -> Iterator[Sequence[float] | None]:
    """Return the vector of each text, in order; None where a text has none.

    Vectors that cost money are kept beside the ledger, and not bought twice.

    Raises:
        ModelError: If the embedder cannot be used.
    """
    embedder: Embedder = rt.models.embedder(bound(model).name)
    if embedder.name == NGRAMS:
        yield from embed_all(texts, embedder, None)
        return
    ledger = rt.ledger()
    with Vectors(_kept(rt)) as vectors:
        yield from embed_all(texts, embedder, vectors, ledger)


def wanted_vectors(texts: Iterable[str], model: str | ModelSpec, rt: Runtime) -> Calls | None:
    """Count the vectors of texts, and those that are not kept; None where they cost nothing."""
    name = bound(model).name
    if name == NGRAMS:
        return None
    keys = {vector_key(name, text) for text in texts if text.strip()}
    known = 0
    if _kept(rt).exists():
        with Vectors(_kept(rt)) as vectors:
            known = len(vectors.get_many(keys))
    return Calls(name, len(keys), len(keys) - known, unit="vectors")


def vectors_at_most(n: int, model: str | ModelSpec) -> Calls | None:
    """Bound the vectors of so many texts; None where they cost nothing."""
    name = bound(model).name
    return None if name == NGRAMS else Calls(name, n, n, bound=True, unit="vectors")


def _kept(rt: Runtime) -> Path:
    return rt.ledger().path.with_name("vectors.sqlite")
