"""Work spread over processes: results in the order of the jobs, a progress bar on stderr, a clean end on Ctrl-C."""

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

Job = TypeVar("Job")
Result = TypeVar("Result")

_given: tuple[Callable[[Any], Any], Sequence[Any]]  # in a worker: what to do, and all jobs


def work(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, label: str) -> Iterator[Result]:
    """The results of `function` for all jobs, in their order, each as soon as it is there.

    Workers are forked, so that they have function and jobs without being sent them. Only results are pickled.

    Args:
        function: What to do with a job.
        jobs: The more, and the more alike in length, the busier all workers are kept.
        workers: Number of processes; 1 works in this one, and so does a single job.
        label: Stands before the progress bar.
    """
    with ExitStack() as stack:
        results: Iterator[Result] = map(function, jobs)
        if workers > 1 and len(jobs) > 1:
            context = multiprocessing.get_context("fork")  # before the progress bar starts its thread
            pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _inherit, (function, jobs))
            stack.enter_context(pool)
            # What has not begun is not waited for after an error or Ctrl-C.
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            futures = deque(pool.submit(_do, place) for place in range(len(jobs)))
            results = (futures.popleft().result() for _ in jobs)
        yield from track(results, label, len(jobs), console=Console(stderr=True))


def _inherit(function: Callable[[Any], Any], jobs: Sequence[Any]) -> None:
    global _given
    _given = function, jobs
    gc.freeze()  # what was there before the fork is not garbage: looking through it would copy it
    gc.set_threshold(100_000)  # images hold no cycles either; should there be some, they do not pile up
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, workers of a parent that was killed would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _do(place: int) -> Any:
    function, jobs = _given
    return function(jobs[place])
