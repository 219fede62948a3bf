"""No hostile program gets out of any sandbox, outlives it, or slows the process that started it."""

import pytest
from tests.faults.hostile import ATTACKS, attack, host

from stillroom.errors import SetupError
from stillroom.sandbox.bubblewrap import Bubblewrap
from stillroom.sandbox.landlock import Landlock
from stillroom.sandbox.probe import probe
from stillroom.sandbox.processes import Processes
from stillroom.sandbox.unsandboxed import Unsandboxed

BACKENDS = {
    "bubblewrap": Bubblewrap,
    "landlock with namespaces": lambda: Landlock(namespaces=True),
    "landlock alone": lambda: Landlock(namespaces=False),
}


@pytest.fixture(scope="module", params=BACKENDS)
def sandbox(request):
    try:
        opened = Processes(BACKENDS[request.param](), workers=1)
    except SetupError as error:
        pytest.skip(f"{request.param}: {error}")
    if problem := probe(opened).problem:
        pytest.skip(f"{request.param} does not work here: {problem}")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def targets():
    with host() as found:
        yield found


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_stays_inside(sandbox, targets, name):
    outcome = attack(sandbox, name, targets)
    assert not outcome.escapes, outcome


@pytest.mark.parametrize(
    "name",
    # Those that change nothing.
    ["TCP to the host", "UDP to the host", "unix socket of the host", "read a file of the host"],
)
def test_attack_is_seen_where_nothing_stops_it(name):
    with host() as targets:
        assert attack(Processes(Unsandboxed(), workers=1), name, targets).escapes


def test_probe_refuses_what_does_not_isolate():
    found = probe(Processes(Unsandboxed(), workers=1))
    assert found.problem is not None
