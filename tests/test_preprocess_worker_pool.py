"""Work spread over processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from preprocess.worker_pool import work


@pytest.mark.subprocess
@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_jobs(workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    def later_ones_first(job: int) -> int:
        time.sleep(0.02 * (3 - job % 3))
        return job * job

    assert list(work(later_ones_first, range(9), workers, "squares")) == [job * job for job in range(9)]
    assert "squares" in capsys.readouterr().err


@pytest.mark.subprocess
def test_jobs_are_shared_out(tmp_path: Path) -> None:
    def who(_: int) -> int:
        time.sleep(0.05)
        return os.getpid()

    assert len(set(work(who, range(6), 2, "")) - {os.getpid()}) == 2


def test_one_job_is_done_at_once() -> None:
    assert list(work(lambda _: os.getpid(), [1], 4, "")) == [os.getpid()]
    assert list(work(lambda _: os.getpid(), [], 4, "")) == []


@pytest.mark.subprocess
def test_an_error_ends_the_work_and_what_has_not_begun_is_left(tmp_path: Path) -> None:
    def fail_early(job: int) -> None:
        if job == 0:
            raise ValueError("job 0")
        time.sleep(0.02)
        (tmp_path / str(job)).touch()

    with pytest.raises(ValueError, match="job 0"):
        list(work(fail_early, range(200), 2, ""))
    assert len(list(tmp_path.iterdir())) < 20


@pytest.mark.subprocess
def test_ctrl_c_is_answered_by_the_parent_alone() -> None:
    def interrupted(job: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return job

    assert list(work(interrupted, range(4), 2, "")) == [0, 1, 2, 3]


@pytest.mark.subprocess
def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, time
from preprocess.worker_pool import work
def job(_):
    pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
    time.sleep(0.05)
list(work(job, range(100_000), 3, ""))
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    until(lambda: len(list(tmp_path.iterdir())) == 3)
    parent.kill()
    parent.wait()
    until(lambda: not any(runs(worker.name) for worker in tmp_path.iterdir()))


def runs(process: str) -> bool:
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
