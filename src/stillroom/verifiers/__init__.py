"""Decide whether an answer is right; steps and benchmarks use the same verifiers.

Undecided is never counted as correct, and never as wrong.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from stillroom.verifiers.verdict import Outcome, Task, Verdict, Verifier

__all__ = ["Kind", "Outcome", "Task", "Verdict", "Verifier", "verifier"]

Kind = Literal["math", "choice", "exact"]


@contextmanager
def verifier(kind: Kind, *, workers: int = 1) -> Iterator[Verifier]:
    """Open a verifier, and end its worker processes on the way out.

    Workers start when the first answer needs one; integer-like answers never do.

    Args:
        kind: ``math`` compares values, ``choice`` letters, ``exact`` normal forms of the text.
        workers: Processes for ``math``; the others need none. Verdicts never depend on it.

    Raises:
        VerifierError: While verifying, if no worker can start.
    """
    # Imported here because a math worker imports this package too, and must stay small.
    if kind == "math":
        from stillroom.verifiers.math import MathVerifier

        with MathVerifier(workers=workers) as opened:
            yield opened
    elif kind == "choice":
        from stillroom.verifiers.choice import ChoiceVerifier

        yield ChoiceVerifier()
    else:
        from stillroom.verifiers.exact import ExactVerifier

        yield ExactVerifier()
