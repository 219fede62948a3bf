"""The fastText library behind one file: linear text classifiers, trained in seconds.

The original project is archived. Two builds of 2024 and later were tried on one thread, with one
seed and the same file: equal runs gave different models, or ended in NaN (ADR 6). ``floret`` is
Explosion's build of fastText (MIT, with wheels), here in its plain fastText mode; its equal runs
were equal. It is the extra ``stillroom[fasttext]``.
"""

import importlib.metadata
import random
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from stillroom.errors import SetupError

PACKAGE = "floret"
GOOD, BAD = "__label__QA_doc", "__label__Not_QA_doc"


class Training(BaseModel):
    """How a classifier is trained; the defaults are those of OpenThoughts.

    Attributes:
        dim: Numbers in a word's vector.
        epoch: Passes over the examples.
        lr: Learning rate.
        word_ngrams: Longest run of words that is a feature.
        min_count: Occurrences below which a word is no feature.
        buckets: Places that runs of words are hashed into; memory is 4 * dim * buckets bytes, 2 GB
            by default.
        seed: Of the order of the examples, and of the training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(256, ge=1, le=10_000)
    epoch: int = Field(3, ge=1)
    lr: float = Field(0.1, gt=0)
    word_ngrams: int = Field(2, ge=1, le=10)
    min_count: int = Field(3, ge=1)
    buckets: int = Field(2_000_000, ge=1)
    seed: int = Field(0, ge=0, lt=2**31)


class Classifier:
    """A trained classifier.

    Attributes:
        engine: Package and version.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.engine = f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"

    def good(self, texts: Sequence[str]) -> list[float | None]:
        """Return the probability, 0 to 1, that each text is good; None for one without words."""
        lines = [plain(text) for text in texts]
        # Only the likelier label: asked for both, floret gives both the chance of the first.
        labels, chances = self._model.predict(lines, k=1) if lines else ([], [])
        found: list[float | None] = []
        for line, names, values in zip(lines, labels, chances, strict=True):
            if not line or not len(names):
                found.append(None)
                continue
            chance = min(1.0, float(values[0]))  # the library's reach a little beyond 1
            found.append(chance if names[0] == GOOD else 1.0 - chance)
        return found


def train(good: Iterable[str], bad: Iterable[str], training: Training) -> Classifier:
    """Train on examples, in one thread and with a seed: the same examples give the same model.

    Raises:
        SetupError: If the library is not installed, or cannot train on these examples.
    """
    try:
        import floret
    except ImportError as error:
        raise SetupError(
            f"label.classifier: the library {PACKAGE} is not there ({error}); expected the extra "
            "`fasttext`. Run `pip install stillroom[fasttext]`."
        ) from error
    lines = [f"{GOOD} {plain(text)}\n" for text in good]
    lines += [f"{BAD} {plain(text)}\n" for text in bad]
    random.Random(training.seed).shuffle(lines)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.txt"
        file.write_text("".join(lines), encoding="utf-8", errors="replace")
        try:
            model = floret.train_supervised(
                mode="fasttext",
                input=str(file),
                dim=training.dim,
                epoch=training.epoch,
                lr=training.lr,
                wordNgrams=training.word_ngrams,
                minCount=training.min_count,
                bucket=training.buckets,
                seed=training.seed,
                thread=1,
                verbose=0,
            )
            if set(model.get_words()) <= {"</s>"}:
                raise ValueError("no word is frequent enough")
        except (ValueError, RuntimeError, MemoryError) as error:
            raise SetupError(
                f"label.classifier: cannot be trained on {len(lines):,} examples ({error}); "
                f"expected words that occur {training.min_count} times or more, and memory for "
                f"{4e-9 * training.dim * training.buckets:.1f} GB. Give more examples, or lower "
                "min_count or buckets."
            ) from error
    return Classifier(model)


def plain(text: str) -> str:
    r"""Put a text into one line without marks that the library would take for labels.

    >>> plain("two\nlines  __label__QA_doc")
    'two lines label QA_doc'
    """
    return " ".join(re.sub(r"__label__", " label ", text).replace("\0", " ").split())
