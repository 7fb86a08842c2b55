"""`--search N`: Optuna proposes the settings of the next run. Chosen by val; test is not looked at."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medvl.errors import DataError, UsageError
from medvl.sweep.plan import Run, Space

_NAME = "search"


def search(
    spaces: Mapping[str, Space | list[Any]],
    trials: int,
    out: Path,
    judge: Callable[[Run], float],
    seed: int,
) -> list[Run]:
    """Run trials until there are so many; those of a run that was stopped count, and are not repeated.

    Args:
        spaces: Key -> what is tried.
        trials: How many, all starts together.
        out: Folder of the sweep; the study lies there as a SQLite file.
        judge: Trains and scores a run; larger is better.
        seed: Of the proposals.

    Returns:
        The runs that were judged, in order.

    Raises:
        UsageError: Optuna is not installed.
        DataError: more runs failed than were wanted. One that fails is replaced by another.
    """
    try:
        import optuna
    except ImportError as error:
        raise UsageError("--search needs Optuna: pip install --editable '.[sweep]' in the clone") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{out / 'search.db'}",
        study_name=_NAME,
        direction="maximize",
        load_if_exists=True,
    )
    for waiting in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a search that was killed
        study.enqueue_trial(waiting.params, user_attrs={"of": waiting.number})
        study.tell(waiting.number, state=optuna.trial.TrialState.FAIL)

    def judged(trial: Any) -> float:
        return judge(_run(trial, {key: _suggest(trial, key, space) for key, space in spaces.items()}))

    def done() -> list[Any]:
        return list(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))

    failed = 0
    while len(done()) < trials:
        # Seeded anew for every trial, or a search that goes on would propose what it proposed at first.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
        study.optimize(judged, n_trials=1, catch=(DataError,))
        failed += study.trials[-1].state == optuna.trial.TrialState.FAIL
        if failed > trials:
            raise DataError(
                f"{failed} runs of the search failed, more than it was to have; see their train.log in {out}"
            )
    return [_run(trial, trial.params) for trial in done()]


def _run(trial: Any, overrides: dict[str, Any]) -> Run:
    """A trial as a run; one that a killed search had begun keeps its name, and with it its folder."""
    return Run(f"trial_{trial.user_attrs.get('of', trial.number):03d}", overrides)


def _suggest(trial: Any, key: str, space: Space | list[Any]) -> Any:
    if not isinstance(space, Space):
        return trial.suggest_categorical(key, space)
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(key, space.low, space.high, log=space.log)
    return trial.suggest_float(key, space.low, space.high, log=space.log)
