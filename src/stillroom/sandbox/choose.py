"""Open the sandbox that this machine allows; never go on without one in silence."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stillroom.errors import SetupError
from stillroom.sandbox.bubblewrap import Bubblewrap
from stillroom.sandbox.docker import Docker
from stillroom.sandbox.job import Sandbox
from stillroom.sandbox.landlock import Landlock
from stillroom.sandbox.probe import probe
from stillroom.sandbox.processes import Launcher, Processes
from stillroom.sandbox.remote import Remote
from stillroom.sandbox.unsandboxed import Unsandboxed

FLAG = "--allow-unsandboxed-code"
CHOICES = "auto, bubblewrap, landlock, docker[:IMAGE], podman[:IMAGE], or the URL of a service"
LOCAL: Mapping[str, Callable[[], Launcher]] = {"bubblewrap": Bubblewrap, "landlock": Landlock}
"""Tried in this order."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A backend that was tried on this machine.

    Attributes:
        backend: Its name, with its version where that is known.
        problem: Why it cannot be used; None if it can.
        python_version: Of the Python inside.
    """

    backend: str
    problem: str | None
    python_version: str = ""


def try_backend(name: str, *, workers: int) -> tuple[Sandbox | None, Tried]:
    """Open one backend and attack it; no sandbox if it does not hold."""
    kind, _, image = name.partition(":")
    try:
        sandbox: Sandbox
        if name.startswith(("http://", "https://")):
            sandbox = Remote(name, workers=workers)
        elif kind in ("docker", "podman"):
            sandbox = Processes(Docker(*[image] if image else [], program=kind), workers=workers)
        elif name in LOCAL:
            sandbox = Processes(LOCAL[name](), workers=workers)
        else:
            raise SetupError(f"no such sandbox; expected {CHOICES}")
    except SetupError as error:
        return None, Tried(name, str(error))
    found = probe(sandbox)
    if found.problem is not None:
        return None, Tried(sandbox.name, found.problem)
    return sandbox, Tried(sandbox.name, None, found.python_version)


def open_sandbox(
    choice: str = "auto", *, allow_unsandboxed: bool = False, workers: int = 2
) -> tuple[Sandbox, str]:
    """Open a sandbox that withstood the probe.

    Args:
        choice: One of `CHOICES`.
        allow_unsandboxed: Whether to run programs with the user's own rights if no sandbox
            works.
        workers: Jobs at one time.

    Returns:
        The sandbox, and the version of the Python inside.

    Raises:
        SetupError: If none works, with what is wrong with each.
    """
    problems = []
    for name in LOCAL if choice == "auto" else [choice]:
        sandbox, tried = try_backend(name, workers=workers)
        if sandbox is not None:
            return sandbox, tried.python_version
        problems.append(f"{tried.backend}: {tried.problem}")
    if allow_unsandboxed:
        return Processes(Unsandboxed(), workers=workers), platform.python_version()
    raise SetupError(
        f"sandbox: code from models cannot be isolated here ({'; '.join(problems)}); expected a "
        f"sandbox that works. Run `apt-get install bubblewrap`, or pass {FLAG} to run it with your "
        "own rights."
    )
