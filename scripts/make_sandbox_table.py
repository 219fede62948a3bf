"""Attack every sandbox of this machine, and write the table of docs/sandbox.md.

Usage: python scripts/make_sandbox_table.py   takes about two minutes; run it as root and as
another user to see both ways into each backend. Backends that do not work here are left out of the
table, and named below it.
"""

import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.faults.hostile import ATTACKS, LIMITS, attack, host
from tests.faults.test_sandbox_attacks import BACKENDS

from stillroom.errors import SetupError
from stillroom.sandbox.probe import probe
from stillroom.sandbox.processes import Processes

PAGE = Path(__file__).parents[1] / "docs" / "sandbox.md"
BEGIN, END = "<!-- table: scripts/make_sandbox_table.py -->", "<!-- end of the table -->"


def main() -> None:
    """Run every attack everywhere, and put the table into the page."""
    sandboxes, absent = {}, []
    for name, make in BACKENDS.items():
        try:
            sandbox = Processes(make(), workers=1)
            problem = probe(sandbox).problem
        except SetupError as error:
            problem = str(error)
        if problem:
            absent.append(f"{name}: {problem}")
        else:
            sandboxes[name] = sandbox
    rows = [
        f"| attack | {' | '.join(sandbox.name for sandbox in sandboxes.values())} |",
        f"| --- |{' --- |' * len(sandboxes)}",
    ]
    escapes = 0
    with host() as targets:
        for name, (kind, _) in ATTACKS.items():
            cells = []
            for sandbox in sandboxes.values():
                outcome = attack(sandbox, name, targets)
                escapes += bool(outcome.escapes)
                cells.append(f"**{'; '.join(outcome.escapes)}**" if outcome.escapes else "held")
            rows.append(f"| {kind}: {name} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    user = "root" if os.geteuid() == 0 else "a user without rights"
    rows += [
        "",
        f"{len(ATTACKS)} attacks, {escapes} escapes; Linux {platform.release().split('-')[0]}, "
        f"started by {user}; limits of each: {LIMITS.cpu_s:g} s of CPU, {LIMITS.wall_s:g} s on the "
        f"clock, {LIMITS.memory_mib} MiB, {LIMITS.processes} processes, {LIMITS.disk_mib} MiB and "
        f"{LIMITS.files} names of files.",
        *(f"Not here: {line}." for line in absent),
    ]
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(rows) + f"\n\n{END}{after}")
    sys.exit(1 if escapes else 0)


if __name__ == "__main__":
    main()
