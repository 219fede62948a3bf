"""The ledger: every completion ever paid for, kept before it is used.

    ledger/
      <machine>.<n>.journal   the truth: records, only appended to, by one machine only
      <machine>.sqlite        that machine's index of all journals, and its claims

Each machine writes journals of its own and reads those of all others, so that a ledger may lie on
a network file system: nothing there needs a lock or memory shared between machines. An index is
made of the journals and can be deleted.

Covered: a process killed at any moment loses no completion that ``put`` returned for; a power cut
loses none that ``sync`` returned for, and at most the last second otherwise; threads and processes
of one machine share an index. A torn payload is found by its checksum and named, never used.

Not covered: claims reach as far as the machine, so two machines that want the same completion at
the same time both buy it; the earlier one then counts for everybody. Two machines of one name and
one ``/etc/machine-id`` would write the same journal: set ``STILLROOM_MACHINE`` on them.

From the door down to the bytes:

- ``ledger``: the door: put, get, forget, claim, sync;
- ``accounts``: tokens and failures, summed;
- ``verification``, ``compaction``, ``moving``: long jobs over whole journals;
- ``claims``: who is asking for what at this moment;
- ``folder``: journals and index kept in agreement, whoever wrote, was killed or went away;
- ``bodies``: completions by their place in a journal;
- ``index``: where each completion lies, in SQLite;
- ``files``: the journals of a folder, opened;
- ``codec``: a completion as bytes;
- ``journal``: the form of one journal.
"""

from stillroom.models.ledger.accounts import Counts, History, LedgerStats, Usage
from stillroom.models.ledger.compaction import Compacted
from stillroom.models.ledger.files import machine_name
from stillroom.models.ledger.ledger import Ledger
from stillroom.models.ledger.verification import Torn

__all__ = [
    "Compacted",
    "Counts",
    "History",
    "Ledger",
    "LedgerStats",
    "Torn",
    "Usage",
    "machine_name",
]
