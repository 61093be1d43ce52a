"""What a piece of work costs the machine: CPU seconds of all of it, memory of some processes."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

import psutil

SAMPLE_SHARE = 0.05  # of one core, at most: looking must not take from what is looked at


def cpu_seconds() -> float:
    """CPU seconds that this machine has spent since it started, on anything.

    Idle time and waiting for disks are left out; a guest's time is in user time already.
    """
    spent = psutil.cpu_times()._asdict()
    unspent = ("idle", "iowait", "guest", "guest_nice")
    return float(sum(seconds for name, seconds in spent.items() if name not in unspent))


def spent(pids: Mapping[int, tuple[str, str]]) -> defaultdict[str, float]:
    """CPU seconds of processes since they started, by what they are.

    Args:
        pids: For each, what it is itself, and what its ended children were.
    """
    found: defaultdict[str, float] = defaultdict(float)
    for pid, (itself, children) in pids.items():
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            found[itself] += times.user + times.system
            found[children] += times.children_user + times.children_system
    return found


def family(pids: Sequence[int]) -> list[psutil.Process]:
    """Processes and all below them, each once."""
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            top = psutil.Process(pid)
            found |= {process.pid: process for process in (top, *top.children(recursive=True))}
    return list(found.values())


@dataclass
class Memory:
    """The most memory that some processes had together.

    Attributes:
        tops: Their ids, asked for at each look; who is below them is meant too.
        apart: Of these, one that only stands for who is below it; 0 for none.
        pss: In MB; what several share is divided among them.
        uss: In MB; what no other process shares.
        top_uss: In MB; the first of the processes alone.
        hidden: How often a process could not be looked at: Airflow hides the memory of its tasks
            from all users but root.
    """

    tops: Callable[[], Sequence[int]]
    apart: int = 0
    pss: float = 0.0
    uss: float = 0.0
    top_uss: float = 0.0
    hidden: int = 0

    def look(self, read: Callable[[psutil.Process], Any]) -> None:
        """Take one sample.

        Args:
            read: Gives a process' psutil memory_full_info.
        """
        tops = list(self.tops())
        pss = uss = 0.0
        for process in family(tops):
            if process.pid == self.apart:
                continue
            try:
                held = read(process)
            except psutil.AccessDenied:
                self.hidden += 1
            except psutil.NoSuchProcess:
                continue
            else:
                pss += held.pss / 1e6
                uss += held.uss / 1e6
                if process.pid == tops[0]:
                    self.top_uss = max(self.top_uss, held.uss / 1e6)
        self.pss, self.uss = max(self.pss, pss), max(self.uss, uss)


@dataclass
class Watch:
    """Counts what the block in it costs.

    Attributes:
        memories: Sampled again and again.
        every: Seconds between two samples; more where looking costs too much.
        cpu: CPU seconds of the whole machine, once the block has ended.
    """

    memories: Sequence[Memory]
    every: float = 0.5
    cpu: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        self.cpu = -cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu += cpu_seconds()
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        pause = self.every
        while not self._done.wait(pause):
            before, read = time.thread_time(), cache(psutil.Process.memory_full_info)
            for memory in self.memories:
                memory.look(read)
            pause = max(self.every, (time.thread_time() - before) / SAMPLE_SHARE)
