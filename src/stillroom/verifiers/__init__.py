"""Decide whether an answer is right; steps and benchmarks use the same verifiers.

Undecided is never counted as correct, and never as wrong.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from stillroom.verifiers.verdict import Outcome, Task, Verdict, Verifier

__all__ = ["Kind", "Outcome", "Task", "Verdict", "Verifier", "key_of", "verifier"]

Kind = Literal["math", "choice", "letters", "exact", "code"]


CHANGED: Mapping[str, str] = {"choice": "choice/2", "math": "math/5"}
"""Verifiers whose verdicts have changed since keys were first made of their words."""


def key_of(kind: str) -> str:
    """Return what stands for a verifier in keys: its word, or its name where it has changed.

    >>> key_of("exact"), key_of("choice")
    ('exact', 'choice/2')
    """
    return CHANGED.get(kind, kind)


@contextmanager
def verifier(
    kind: Kind, *, workers: int = 1, sandbox: str = "auto", allow_unsandboxed: bool = False
) -> Iterator[Verifier]:
    """Open a verifier, and end its worker processes on the way out.

    Workers start when the first answer needs one; integer-like answers never do.

    Args:
        kind: ``math`` compares values, ``choice`` a letter, ``letters`` sets of them, ``exact``
            normal forms of the text; ``code`` runs tests.
        workers: Processes for ``math`` and ``code``; the others need none. Verdicts never depend
            on it.
        sandbox: Where ``code`` runs; see `stillroom.sandbox.open_sandbox`.
        allow_unsandboxed: Whether ``code`` may run without a sandbox where none works.

    Raises:
        VerifierError: While verifying, if no worker can start.
        SetupError: If ``code`` cannot be isolated, and was not told to run all the same.
    """
    # Imported here because a math worker imports this package too, and must stay small.
    if kind == "math":
        from stillroom.verifiers.math import MathVerifier

        with MathVerifier(workers=workers) as opened:
            yield opened
    elif kind == "code":
        from stillroom.sandbox import open_sandbox
        from stillroom.verifiers.code import CodeVerifier

        box, version = open_sandbox(sandbox, allow_unsandboxed=allow_unsandboxed, workers=workers)
        with CodeVerifier(box, python_version=version) as opened_code:
            yield opened_code
    elif kind == "choice":
        from stillroom.verifiers.choice import ChoiceVerifier

        yield ChoiceVerifier()
    elif kind == "letters":
        from stillroom.verifiers.letters import LettersVerifier

        yield LettersVerifier()
    else:
        from stillroom.verifiers.exact import ExactVerifier

        yield ExactVerifier()
