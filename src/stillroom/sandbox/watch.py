"""Look at a running tree of processes from outside, through ``/proc``."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST = 4096  # processes looked at; no limit on processes is as high


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tree of processes uses.

    Attributes:
        cpu_s: CPU seconds, those of ended children too.
        memory: Resident bytes. Pages shared after a fork count once for each process.
        pids: The processes.
    """

    cpu_s: float
    memory: int
    pids: tuple[int, ...]


def look(root: int) -> Seen:
    """Add up what a process and its descendants use; those that end meanwhile are left out."""
    cpu = memory = 0
    found: list[int] = []
    waiting = [root]
    while waiting and len(found) < _MOST:
        pid = waiting.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name of a process may hold anything, even parentheses.
            stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            found.append(pid)
            cpu += sum(int(ticks) for ticks in stat[11:15])
            memory += int(stat[21]) * _PAGE
            for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - a hundredfold cheaper
                with contextlib.suppress(OSError):
                    children = _read(f"/proc/{pid}/task/{task}/children").split()
                    waiting += [int(child) for child in children]
    return Seen(cpu / _TICKS, memory, tuple(found))


def shared_once(pids: tuple[int, ...]) -> int | None:
    """Return the bytes of memory that processes use, shared pages counted once; None if unknown."""
    total = 0
    for pid in pids:
        try:
            text = _read(f"/proc/{pid}/smaps_rollup")
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return None
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _read(path: str) -> str:
    return Path(path).read_text("ascii", "replace")


def folder_size(folder: Path, at_most: int) -> tuple[int, int]:
    """Return the files and bytes below a folder; counting stops after `at_most` files."""
    count = size = 0
    waiting = [str(folder)]
    while waiting and count <= at_most:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if count > at_most:
                    break
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return count, size
