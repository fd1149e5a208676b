"""The jobs that wait: bounded, those of a higher priority first, and in turns for each client."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator

from sdrt.serve.job import Job

__all__ = ["JobQueue", "QueueFullError"]


class QueueFullError(Exception):
    """As many jobs wait as may."""


class JobQueue:
    """Jobs that wait. Within a priority, each client has its turn, however many jobs another has.

    A client of which jobs wait cannot take all places: one is kept for each known client of which none waits, up to a
    quarter of them.

    Args:
        bound: how many jobs may wait.
        clients: those that are known beforehand.
    """

    def __init__(self, bound: int, clients: Iterable[str] = ()) -> None:
        self.bound, self._known = bound, frozenset(clients)
        # For each priority the clients, the one whose turn is next first, with their jobs.
        self._waiting: dict[int, OrderedDict[str, deque[Job]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Job]:
        """All jobs, in the order in which they would run if none came."""
        for priority in sorted(self._waiting, reverse=True):
            lines = [list(jobs) for jobs in self._waiting[priority].values()]
            for place in range(max(map(len, lines), default=0)):
                yield from (line[place] for line in lines if place < len(line))

    def put(self, job: Job) -> None:
        """Add a job.

        Raises:
            QueueFullError: as many wait as may.
        """
        if self._count + self._kept_from(job.client) >= self.bound:
            raise QueueFullError
        self._line(job).append(job)
        self._count += 1

    def put_back(self, job: Job) -> None:
        """Add a job that had its turn before all others of its client. It was accepted, so the bound does not count."""
        self._line(job).appendleft(job)
        self._clients(job).move_to_end(job.client, last=False)
        self._count += 1

    def take(self, fits: Callable[[Job], bool] = lambda job: True) -> Job | None:
        """Remove the job whose turn it is, and return it. None if no waiting job `fits`."""
        found = next((job for job in self if fits(job)), None)
        if found is not None:
            self.remove(found)
            if found.client in self._clients(found):
                self._clients(found).move_to_end(found.client)
        return found

    def take_like(self, first: Job, most: int) -> list[Job]:
        """Remove up to `most` jobs that can share a run with `first`, and return them."""
        if most < 1 or not first.shares:
            return []
        found = [job for job in self if job.shares and _share(first, job)][:most]
        for job in found:
            self.remove(job)
        return found

    def remove(self, job: Job) -> bool:
        """Remove a job. Tells whether it was waiting."""
        clients = self._clients(job)
        line = clients.get(job.client)
        if line is None or job not in line:
            return False
        line.remove(job)
        self._count -= 1
        if not line:
            del clients[job.client]
        return True

    def _kept_from(self, client: str) -> int:
        """The places that are kept for others."""
        waiting = {name for clients in self._waiting.values() for name in clients}
        return min(len(self._known - waiting), self.bound // 4) if client in waiting else 0

    def _clients(self, job: Job) -> OrderedDict[str, deque[Job]]:
        return self._waiting.setdefault(job.priority, OrderedDict())

    def _line(self, job: Job) -> deque[Job]:
        return self._clients(job).setdefault(job.client, deque())


def _share(first: Job, other: Job) -> bool:
    return first.priority == other.priority and first.task.shares_run_with(other.task)
