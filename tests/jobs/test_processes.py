"""Handlers in child processes: what they can do, and what still runs after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hasten.jobs import Job, State, Worker
from tests.acceptance.site import is_alive
from tests.jobs import process_tasks
from tests.jobs.eventually import fails, until, until_state, until_true


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    async with Worker(process_tasks.queue, handler_processes=1, grace=0) as worker:
        yield worker
    await process_tasks.queue.aclose()


async def run(task: Any, *args: object) -> Any:
    return await (await task.enqueue(*args)).result(timeout=20)


class TestContext:
    async def test_takes_lines_from_many_threads(self, worker: Worker) -> None:
        """No line is cut or mixed with another one."""
        job = await process_tasks.log_from_threads.enqueue(8, 20)
        await job.result(timeout=20)
        lines = await job.logs()
        assert sorted(lines) == sorted(str(n) * 40_000 for n in range(8) for _ in range(20))

    async def test_takes_lines_from_a_handler_of_signals(self, worker: Worker) -> None:
        """The signal handler may interrupt a log call of the same thread."""
        job = await process_tasks.log_from_a_signal_handler.enqueue()
        await job.result(timeout=20)
        assert set(await job.logs()) <= {"from the handler", "x" * 10_000}

    async def test_reports_of_an_ended_job_are_not_added_to_the_next_one(
        self, worker: Worker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A thread that outlives its job still logs.

        One log record says that its lines are dropped.
        """
        first = await process_tasks.leave_a_thread.enqueue(str(tmp_path))
        await first.result(timeout=20)
        second = await process_tasks.let_it_go_on.enqueue(str(tmp_path))
        await second.result(timeout=20)
        assert await first.logs() == []
        assert await second.logs() == ["of the second"]
        assert (await first.refresh()).progress is None
        assert (await second.refresh()).progress is None
        said = capfd.readouterr().err
        assert said.count(f"job {first.id} (leave_a_thread): log line or progress dropped") == 1

    async def test_refuses_lines_from_a_fork(self, worker: Worker) -> None:
        """Two processes that write into one pipe would mix their lines."""
        assert await run(process_tasks.log_from_a_fork) == 7


class TestSignals:
    async def test_do_not_end_them(self, worker: Worker) -> None:
        """Ctrl+C and SIGTERM are for the worker, which waits for its processes."""
        await run(process_tasks.reset_signals)
        assert await run(process_tasks.survive_signals) == "alive"

    async def test_end_the_programs_that_a_handler_starts(self, worker: Worker) -> None:
        """Programs and forks do not inherit that a signal is ignored."""
        for number in (signal.SIGTERM, signal.SIGINT):
            assert await run(process_tasks.signal_program, int(number)) == -number
        assert await run(process_tasks.signal_fork, int(signal.SIGTERM)) == -signal.SIGTERM
        # By the signal itself if it comes at once, else by a KeyboardInterrupt.
        assert await run(process_tasks.signal_fork, int(signal.SIGINT)) in {-signal.SIGINT, 1}


class TestWhatTheyStart:
    @pytest.mark.parametrize("method", ["fork", "spawn"])
    async def test_may_be_processes_and_pools(self, worker: Worker, method: str) -> None:
        assert await run(process_tasks.use_multiprocessing, method) == [[1], [2], [3]]

    @pytest.mark.parametrize("how", ["time-out", "cancelled", "stopped", "died"])
    async def test_ends_with_a_run_that_is_ended(self, how: str) -> None:
        """Otherwise it would run at the same time as the next run of the job."""
        options: dict[str, Any] = {"timeout": 1} if how == "time-out" else {}
        async with Worker(process_tasks.queue, handler_processes=1, grace=0) as worker:
            await run(process_tasks.double, 1)  # the process has started: time is short
            job = await process_tasks.start_programs.using(**options).enqueue(
                "exit" if how == "died" else "wait"
            )
            pids = await logged_pids(job)
            if how == "cancelled":
                await job.cancel()
            if how == "stopped":
                await worker.stop()
                assert (await job.refresh()).state is State.WAITING
                await job.remove()
            else:
                await fails(job.result(timeout=20))
            await until_dead(pids)
        await process_tasks.queue.aclose()

    @pytest.mark.parametrize("how", ["time-out", "cancelled", "killed"])
    async def test_a_fork_does_not_delay_the_end_of_the_run(self, how: str) -> None:
        """A fork inherits the open pipes of its process, and ends with the process."""
        options: dict[str, Any] = {"timeout": 1} if how == "time-out" else {}
        async with Worker(process_tasks.queue, handler_processes=1, grace=0):
            process = await run(process_tasks.pid)  # it has started: time is short
            job = await process_tasks.leave_a_fork.using(**options).enqueue()
            pids = await logged_pids(job, 1)
            if how == "cancelled":
                await job.cancel()
            if how == "killed":
                os.kill(process, signal.SIGKILL)
            await fails(job.result(timeout=20))
            await until_dead(pids)
            assert await run(process_tasks.double, 1) == 2
        await process_tasks.queue.aclose()

    async def test_runs_on_after_a_successful_run_until_the_child_ends(self) -> None:
        """A handler may start programs for later. They do not outlive the worker."""
        async with Worker(process_tasks.queue, handler_processes=1):
            job = await process_tasks.start_programs.enqueue("return")
            pids = await logged_pids(job)
            await job.result(timeout=20)
            await run(process_tasks.double, 1)
            assert all(map(is_alive, pids))
        await until_dead(pids)
        await process_tasks.queue.aclose()

    async def test_ends_with_an_idle_process_that_is_killed(self, worker: Worker) -> None:
        job = await process_tasks.start_programs.enqueue("return")
        pids = await logged_pids(job)
        await job.result(timeout=20)
        os.kill(await run(process_tasks.pid), signal.SIGKILL)
        await until_dead(pids)


async def logged_pids(job: Job[None], count: int = 2) -> list[int]:
    async def are_there() -> bool:
        return len(await job.logs()) == count

    await until_true(are_there)
    return [int(line) for line in await job.logs()]


async def until_dead(pids: list[int]) -> None:
    await until(lambda: not any(map(is_alive, pids)))


class TestFailures:
    @pytest.mark.parametrize(
        ("how", "reason"),
        [
            ("success", "ProcessDied: the handler's process died: exit code 0"),
            ("no text", "Unspeakable"),
            ("recursion", "RecursionError: "),
            ("closed files", "ProcessDied: the handler's process died: its handler has"),
            ("other files", "ProcessDied: the handler's process died: its handler has"),
            ("another program", "ProcessDied: the handler's process died: its connection"),
        ],
        ids=lambda text: text.partition(":")[0],
    )
    async def test_use_up_an_attempt_each(self, worker: Worker, how: str, reason: str) -> None:
        """The worker does not hang, and each run counts."""
        job = await process_tasks.fail.using(attempts=1).enqueue(how)
        assert (await fails(job.result(timeout=20))).startswith(reason)
        await job.refresh()
        assert (job.attempts_made, job.record.attempts_started) == (1, 1)

    async def test_of_a_fork_are_its_own(self, worker: Worker) -> None:
        """The fork returns from the handler, too, and ends without sending a result."""
        for how, code in {"return": 0, "error": 1, "exit": 3}.items():
            assert await run(process_tasks.fork, how) == code
        assert await run(process_tasks.double, 2) == 4

    async def test_there_are_none_in_printing(
        self, worker: Worker, capfd: pytest.CaptureFixture[str]
    ) -> None:
        await run(process_tasks.speak)
        assert capfd.readouterr().out == "to the terminal\n"


async def test_large_arguments_arrive(worker: Worker) -> None:
    """They are larger than the buffer of a pipe."""
    assert await run(process_tasks.length, "x" * 900_000) == 900_000


class TestIdleProcesses:
    async def test_that_were_killed_cost_no_attempt(self, worker: Worker) -> None:
        """The out-of-memory killer ends one, and the next job gets a new process."""
        first = await run(process_tasks.pid)
        os.kill(first, signal.SIGKILL)
        await until(lambda: not Path(f"/proc/{first}").exists())
        job = await process_tasks.pid.enqueue()
        assert await job.result(timeout=20) != first
        await job.refresh()
        assert (job.attempts_made, job.record.attempts_started) == (1, 1)

    async def test_that_die_before_they_start_a_job_cost_no_attempt(self, worker: Worker) -> None:
        """Processes report the start of a job, so a job that was not started can run elsewhere."""
        first = await run(process_tasks.pid)
        os.kill(first, signal.SIGSTOP)
        job = await process_tasks.pid.enqueue()
        await until_state(job, State.ACTIVE)
        os.kill(first, signal.SIGKILL)
        assert await job.result(timeout=20) != first
        await job.refresh()
        assert (job.attempts_made, job.record.attempts_started) == (1, 1)


HEAD = """
import asyncio, os, signal, subprocess, sys, time
from hasten.jobs import Queue, Worker

queue = Queue("programs", "memory://")

@queue.task(run_in="process")
def start() -> list[int]:
    return [os.getpid(), subprocess.Popen(["sleep", "600"]).pid]
"""


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    programs: list[subprocess.Popen[str]] = []
    yield programs
    for program in programs:
        program.kill()
        program.communicate()


class TestPrograms:
    """The main module of these programs has the tasks, and their processes import it."""

    @pytest.fixture(autouse=True)
    def _prepare(self, tmp_path: Path, programs: list[subprocess.Popen[str]]) -> None:
        self._path = tmp_path / "program.py"
        self._programs = programs

    def start(self, text: str) -> subprocess.Popen[str]:
        self._path.write_text(HEAD + textwrap.dedent(text))
        program = subprocess.Popen(
            [sys.executable, str(self._path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._programs.append(program)
        return program

    async def test_that_get_signals_while_their_children_start_continue(self) -> None:
        """A program that leaves its worker running ends, and its processes end with it."""
        program = self.start("""
            if __name__ == "__mp_main__":  # it takes a while to import
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)

            async def main():
                await Worker(queue, handler_processes=1).start()
                print(*await (await start.enqueue()).result(timeout=20))

            if __name__ == "__main__":
                asyncio.run(main())
            """)
        output, errors = program.communicate(timeout=60)
        assert (program.returncode, errors) == (0, "")
        await until_dead([int(pid) for pid in output.split()])

    @pytest.mark.parametrize(
        ("at_import", "how", "why"),
        [
            ("if __name__ == '__mp_main__': import missing", "exit code 1", "No module named"),
            ("if __name__ == '__mp_main__': sys.exit(3)", "exit code 3", ""),
            ("__name__ = '__main__'", "exit code 1", 'below `if __name__ == "__main__":`'),
        ],
        ids=["error", "exit", "unguarded"],
    )
    async def test_whose_children_cannot_start_fail_their_jobs(
        self, at_import: str, how: str, why: str
    ) -> None:
        """A failed start counts as an attempt, and the error says so."""
        program = self.start(f"""
            {at_import}

            async def main():
                job = await start.enqueue()
                async with Worker(queue, handler_processes=1):
                    try:
                        await job.result(timeout=20)
                    except Exception as error:
                        await job.refresh()
                        print(job.attempts_made, job.record.attempts_started, error.error)

            if __name__ == "__main__":
                asyncio.run(main())
            """)
        output, errors = program.communicate(timeout=60)
        assert output == (
            "1 1 ProcessDied: the handler's process died while starting: "
            f"{how}; see the standard error of the worker\n"
        )
        assert why in errors

    @pytest.mark.parametrize("busy", [False, True], ids=["idle", "holding the interpreter"])
    async def test_that_are_killed_leave_no_processes_behind(self, busy: bool) -> None:
        """Even if the handler is in one long call in C, which no thread can interrupt."""
        program = self.start(f"""
            @queue.task(run_in="process")
            def hold() -> None:
                print("holding", flush=True)
                sum(range(10**15))

            async def main():
                async with Worker(queue, handler_processes=1):
                    print(*await (await start.enqueue()).result(timeout=20), flush=True)
                    if {busy}:
                        await hold.enqueue()
                    else:
                        print("idle", flush=True)
                    await asyncio.sleep(600)

            if __name__ == "__main__":
                asyncio.run(main())
            """)
        assert program.stdout is not None
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert program.stdout.readline() == ("holding\n" if busy else "idle\n")
        assert all(map(is_alive, pids))
        program.kill()
        await until_dead(pids)

    async def test_that_have_forked_and_are_killed_leave_no_handler_behind(self) -> None:
        """The fork closes the pipes, so that children notice the end of the worker."""
        program = self.start("""
            async def main():
                async with Worker(queue, handler_processes=1):
                    pids = await (await start.enqueue()).result(timeout=20)
                    fork = os.fork()
                    if not fork:
                        time.sleep(600)
                    print(fork, *pids, flush=True)
                    await asyncio.sleep(600)

            if __name__ == "__main__":
                asyncio.run(main())
            """)
        assert program.stdout is not None
        fork, *pids = [int(pid) for pid in program.stdout.readline().split()]
        program.kill()
        await until_dead(pids)
        assert is_alive(fork)
        os.kill(fork, signal.SIGKILL)
