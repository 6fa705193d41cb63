"""Find the job that kills its workers, without failing the jobs that ran at the same time.

Each job that a dead worker was running counts a crash, and is put in front of the queue again. If
the next worker ran all of them together once more, the harmless ones would soon reach the crash
limit together with the poison job.

So a job that one more crash would fail is a *suspect*, and a worker runs only one suspect at a
time: it chooses one, hands the others back, and starts the chosen one when this is stored. If the
worker dies then, only one suspect counts a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from hasten.jobs._capacity import WorkerCapacity
from hasten.jobs._record import JobRecord
from hasten.jobs._run import Run

# How long the suspects that are handed back are delayed. The suspect that is run may need a long
# time, in which another worker may claim the others.
PAUSE_MS: Final = 250


class PoisonJobIsolator:
    """Makes a worker run one suspect at a time, over all its queues.

    A suspect is a job that may have killed its workers: see `is_suspect`. on_start is called after
    a suspect has started: the queues may claim jobs again.
    """

    def __init__(
        self, crash_limit: int, capacity: WorkerCapacity, on_start: Callable[[], None]
    ) -> None:
        self._capacity = capacity
        # 1 for a limit of 1, or every new job would be a suspect.
        self._suspect_crashes = max(1, crash_limit - 1)
        self._on_start = on_start
        self._chosen: Run | None = None  # the chosen suspect, which runs or waits to start
        # Starts the chosen suspect; None once it has started.
        self._start: Callable[[], None] | None = None
        # Ids of suspects that must be handed back before the start.
        self._unsettled: set[str] = set()
        self._is_stopped = False

    @property
    def must_pause_claiming(self) -> bool:
        """Whether the worker must claim no jobs, because the chosen suspect has not started."""
        return self._start is not None

    def is_suspect(self, job: JobRecord) -> bool:
        """Return whether one more crash would fail the job.

        A job with a deferred failure is not a suspect, because it fails without being run.
        """
        return job.crashes >= self._suspect_crashes and job.deferred_failure is None

    def try_choose_run(self, run: Run, start: Callable[[], None]) -> bool:
        """Choose this run, of a suspect, as the one to start, unless another one is chosen.

        `try_start_chosen_suspect` calls start later. Returns False if another run is chosen
        already: the caller must hand this job back to its queue.
        """
        if self._chosen is None:
            self._chosen, self._start = run, start
            return True
        if self._start is not None:
            self._unsettled.add(run.lease.job.id)
        return False

    def mark_outcomes_stored(self, ids: Iterable[str]) -> None:
        """Record that the outcomes of the jobs with these ids are stored.

        So the suspects among them are back in their queues.
        """
        if self._unsettled:
            self._unsettled.difference_update(ids)

    def try_start_chosen_suspect(self) -> None:
        """Start the chosen suspect, unless it is too early for that.

        It is too early while other suspects still have to be handed back, and while a claim is in
        progress, because the claim may return other suspects. The caller then calls again later.
        """
        if self._start is None or self._unsettled or self._capacity.claims or self._is_stopped:
            return
        start, self._start = self._start, None
        start()
        self._on_start()

    def stop_starting_suspects(self) -> None:
        """Start no more suspects. The worker is stopping, and hands back the chosen suspect."""
        self._is_stopped = True

    def mark_ended(self, run: Run) -> None:
        """Record that a run of the worker has ended, which may be that of the chosen suspect."""
        if run is self._chosen:
            self._chosen = self._start = None
            self._unsettled.clear()
