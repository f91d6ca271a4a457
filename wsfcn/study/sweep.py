"""Sweeps: the runs of an experiment that have no record yet, in processes here or on Dask.

Every finished run leaves a record in the experiment's folder at once, so a sweep that was
stopped, however, goes on where it was; a training that was cut off goes on after its last epoch.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..features import cache_folder
from ..files import check_output_folder, write_all
from ..pool import own_cores
from ..settings import SettingsError
from .execute import execute, gpus, leaving, stop
from .experiments import SUFFIX, Run
from .records import records_of, write_record

MOST_JOBS = 8  # of a machine without GPUs, unless told otherwise


class SweepError(Exception):
    """Some runs failed; the others have their records."""


def sweep(
    runs: Sequence[Run],
    folder: str | Path,
    *,
    jobs: int = 0,
    scheduler: str = "",
    again: bool = False,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """The records of all runs, in their order; what the folder holds is not done again.

    jobs: processes at a time; 0: one a GPU, or else one a core, at most MOST_JOBS. The cores are
    shared out among them. scheduler: address of a Dask cluster that does the runs instead; each
    worker runs as many at a time as it has threads, each in a process of its own. again: do
    those that have a record as well.

    A run whose process or worker was killed is done again. Raises SweepError at the end where
    runs failed, naming the first; what each said is kept beside the records. It is raised at once
    where a disk is full; SettingsError before anything starts where the data of a run are not
    there.
    """
    folder = check_output_folder(folder)
    for run in runs:
        data = run.recipe.data if run.recipe is not None else None
        if data is None or data.kind == "scenes" or (data.root and Path(data.root).is_dir()):
            continue
        root = repr(data.root) if data.root else "nothing"
        raise SettingsError(
            f"data.root: {root}; {data.kind} needs the folder of its photos (--data)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    done = {} if again else {record["key"]: record for record in records_of(folder)}
    waiting = [run for run in runs if run.key not in done]
    failed: dict[str, str] = {}
    with (
        _started(waiting, folder, jobs, scheduler) as started,
        tqdm(total=len(runs), unit="run", disable=not progress) as bar,
    ):
        bar.update(len(runs) - len(waiting))
        for future in as_completed(started):
            run = started[future]
            log = run.file.removesuffix(SUFFIX) + ".failed.txt"
            try:
                record = future.result()
                write_record(folder, record)
            except Exception as error:  # of whatever kind: the other runs go on
                if os.strerror(errno.ENOSPC) in str(error):
                    raise SweepError(
                        f"{run}: the disk of {folder} or of {cache_folder()} is full; free some "
                        "space and start the sweep again, it goes on"
                    ) from None
                failed[str(run)] = str(error)
                write_all(folder, {log: getattr(error, "log", str(error)).encode()})
                bar.write(f"{run}: failed: {error}", sys.stderr)
            else:
                done[run.key] = record
                (folder / log).unlink(missing_ok=True)
                bar.write(f"{run}: {told(record)}", sys.stderr)
            bar.update()
    if failed:
        (first, said), more = next(iter(failed.items())), len(failed) - 1
        others = f" (and {more} more)" if more else ""
        raise SweepError(f"{first}: {said}{others}; {len(done)} of {len(runs)} runs have records")
    return [done[run.key] for run in runs]


def told(record: Mapping[str, Any]) -> str:
    """A line on a record: its scores and how long it took."""
    scores = record["scores"].items()
    rates = [f"{name} {score['mIoU'] or 0:.1f} mIoU" for name, score in scores]
    return ", ".join([*rates, f"{record['seconds']['whole'] / 60:.1f} min"])


@contextmanager
def _started(
    runs: Sequence[Run], folder: Path, jobs: int, scheduler: str
) -> Iterator[dict[Future[dict[str, Any]], Run]]:
    """The runs in a pool. Left early, those in progress are killed and the others given up."""
    threads, home = 0, str(folder.absolute())
    if scheduler and runs:
        pool = _dask(scheduler)
    else:
        cores = own_cores()
        jobs = max(1, min(jobs or gpus() or min(cores, MOST_JOBS), len(runs)))
        threads, pool = max(1, cores // jobs), ThreadPoolExecutor(jobs)
    leaving.clear()
    started = {
        pool.submit(execute, run.model_dump(mode="json"), home, threads): run for run in runs
    }
    try:
        yield started
    except BaseException:
        for future in started:
            future.cancel()
        stop()
        raise
    finally:
        pool.shutdown(wait=not scheduler)


def _dask(address: str) -> Executor:
    """A Dask cluster as an executor. What its workers have begun they end, also for nobody."""
    try:
        from distributed import Client
    except ImportError as error:
        text = f"--scheduler needs the extra: pip install 'wsfcn[cluster]' ({error})"
        raise ImportError(text) from None
    try:
        client = Client(address, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        text = f"--scheduler {address}: no Dask scheduler answers there ({error})"
        raise ConnectionError(text) from None
    pool: Executor = client.get_executor(pure=False)
    return pool
