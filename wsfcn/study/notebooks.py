"""Run a notebook: parameters checked first, executed by papermill, its records kept beside it."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import check_output_folder, write_all
from ..stop import Interrupted
from . import kernel
from .parameters import folders_in
from .provenance import environment, inputs_fingerprint, provenance, run_key
from .record import read_records
from .sources import NotebookError, find_notebook, read_notebook, resolve, schema_of

CELL_SECONDS = {"smoke": 180.0, "laptop": 1800.0}
OWN = "wsfcn"  # our entry in the metadata of an executed notebook


@dataclass(frozen=True)
class NotebookRun:
    """An executed notebook.

    path: the executed copy. seconds: what the execution took, also where `reused` says that an
    earlier execution stands for this one. records: what the notebook recorded, name -> value.
    data: fingerprint of the files and folders it was given.
    """

    path: Path
    seconds: float
    records: dict[str, Any] = field(repr=False)
    parameters: dict[str, Any] = field(repr=False)
    reused: bool = False
    data: str = ""

    def __str__(self) -> str:
        how = "unchanged, kept" if self.reused else f"{self.seconds:.1f} s"
        return f"{self.path} ({how}; records: {', '.join(self.records) or 'none'})"


def run_notebook(
    path: str | Path,
    parameters: Mapping[str, Any] | None = None,
    output_folder: str | Path = "runs/notebooks",
    profile: str | None = None,
    again: bool = False,
    progress: bool = True,
    inputs: Iterable[str | Path] = (),
    cell_seconds: float | None = None,
    keyed: bool = False,
) -> NotebookRun:
    """Execute a notebook into `output_folder`: NAME.ipynb and NAME.records.json.

    path: the notebook, or the name of one of the course ("01_cams"). parameters: name -> value
    or its text; what is not given has the default of `profile` (smoke where none is named).
    inputs: further files that the notebook reads. An execution of the same cells, parameters,
    inputs and package is not repeated unless `again`. cell_seconds: limit for each cell
    (default: 180 in smoke, 1800 in laptop, none in paper). keyed: into a folder of its own,
    NAME-KEY, with its figures as figures/NN.png. The notebook runs in the folder that it is
    written to; paths in parameters count from the caller's folder.

    Raises SettingsError for a wrong parameter, before a kernel starts; NotebookError where the
    notebook is missing, unreadable, without a parameters cell, or fails: then the copy with the
    failing cell is kept as NAME.failed.ipynb, as it is where the run is interrupted
    (KeyboardInterrupt) or the disk is full; OSError where the folder cannot be written. The same
    call starts the notebook afresh; trainings in it go on after their last epoch.
    """
    source = find_notebook(path)
    notebook = read_notebook(source)
    schema = schema_of(notebook, source.stem)
    values = resolve(schema, parameters or {}, profile)
    inputs = [*inputs, *folders_in(schema, values)]
    key = run_key(notebook, values, inputs)
    folder = Path(output_folder) / f"{source.stem}-{key[:12]}" if keyed else Path(output_folder)
    folder = check_output_folder(folder)
    target = folder / source.name
    if target.resolve() == source.resolve():
        raise NotebookError(f"{folder}: holds the notebook itself; choose another output folder")
    if not again and (kept := _kept(target, key)) is not None:
        return kept
    if cell_seconds is None:
        cell_seconds = CELL_SECONDS.get(values.get("profile", "laptop"))
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.ipynb")
    started = time.perf_counter()
    try:
        executed = _execute(source, target, partial, values, cell_seconds, progress)
        seconds = round(time.perf_counter() - started, 2)
        records = read_records(executed)
        data = inputs_fingerprint(values, inputs)
        about = {"key": key, "parameters": values, "seconds": seconds, "data": data}
        executed["metadata"][OWN] = {**about, "environment": environment()}
        row = {"notebook": source.stem, **about, "cells": _durations(executed), **provenance()}
        sidecar = json.dumps({**row, "records": records}, indent=1, ensure_ascii=False) + "\n"
        contents = {target.name: _bytes(executed), f"{source.stem}.records.json": sidecar.encode()}
        write_all(folder, contents)
        if keyed:
            write_all(folder / "figures", _figures(executed))
    except OSError as error:  # a full disk: a file needs no room to be renamed
        with suppress(NotebookError):  # it may have been torn
            read_notebook(partial)
            partial.replace(_failed(target))
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from None
    finally:
        partial.unlink(missing_ok=True)
    _failed(target).unlink(missing_ok=True)
    return NotebookRun(target, seconds, records, values, data=data)


def _kept(target: Path, key: str) -> NotebookRun | None:
    """The earlier execution with this key, if it is there."""
    try:
        notebook = json.loads(target.read_text(encoding="utf-8"))
        about = notebook["metadata"][OWN]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if about["key"] != key:
        return None
    records, data = read_records(notebook), about.get("data", "")
    return NotebookRun(target, about["seconds"], records, about["parameters"], True, data)


def _execute(
    source: Path,
    target: Path,
    partial: Path,
    values: dict[str, Any],
    cell_seconds: float | None,
    progress: bool,
) -> dict[str, Any]:
    """The executed notebook; it grows in `partial`. Where it fails or is interrupted, the copy is
    kept and NotebookError or KeyboardInterrupt raised."""
    try:
        import papermill
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
        from nbformat import from_dict
        from papermill.exceptions import PapermillExecutionError

        manager = kernel.manager_class()
    except ImportError as error:
        raise NotebookError(
            f"notebooks need the extra: pip install 'wsfcn[notebooks]' ({error})"
        ) from None
    cause, stopped = None, None
    try:
        papermill.execute_notebook(
            _escape(source),
            _escape(partial),
            values,
            kernel_name=kernel.NAME,
            language="python",
            kernel_manager_class=manager,
            resources={"metadata": {"path": str(target.parent.absolute())}},
            execution_timeout=cell_seconds and max(1, round(cell_seconds)),
            progress_bar={"desc": source.stem} if progress else False,
        )
    except PapermillExecutionError as error:
        cause = f"{error.ename}: {(str(error.evalue).splitlines() or [''])[0]}"
    except CellTimeoutError:
        cause = f"took more than {cell_seconds:g} s"
    except DeadKernelError:
        cause = "the kernel died, perhaps for want of memory"
    except KeyboardInterrupt as error:
        if not partial.exists():
            raise
        cause, stopped = "interrupted", error
    executed = read_notebook(partial)
    # Papermill notes absolute paths; where a copy was made says nothing about what it shows.
    executed["metadata"]["papermill"].update(input_path=source.name, output_path=target.name)
    if cause is None:
        return executed
    ran = _ran(executed)
    if ran and not any(output["output_type"] == "error" for output in ran[-1]["outputs"]):
        told = {"output_type": "error", "ename": "Stopped", "evalue": cause, "traceback": [cause]}
        ran[-1]["outputs"].append(from_dict(told))
    failed = _failed(target)
    write_all(target.parent, {failed.name: _bytes(executed)})
    said = f"{source.stem}: {_place(executed)}: {cause:.300} (the copy so far: {failed})"
    if stopped is not None:
        raise Interrupted(f"interrupted: {said}", getattr(stopped, "code", 130))
    raise NotebookError(said)


def _durations(executed: dict[str, Any]) -> list[float]:
    """Seconds of each code cell."""
    code = [cell for cell in executed["cells"] if cell["cell_type"] == "code"]
    return [cell["metadata"].get("papermill", {}).get("duration") or 0.0 for cell in code]


def _figures(executed: dict[str, Any]) -> dict[str, bytes]:
    """The pictures in the outputs as files, numbered in their order."""
    outputs = (o for cell in executed["cells"] for o in cell.get("outputs", ()))
    found = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", ())]
    return {f"{n:02d}.png": base64.b64decode(png) for n, png in enumerate(found, 1)}


def _failed(target: Path) -> Path:
    return target.with_suffix(".failed.ipynb")


def _ran(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The code cells that were started; the last one is where a run ended."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [cell for cell in code if cell["metadata"]["papermill"]["start_time"]]


def _place(notebook: dict[str, Any]) -> str:
    """The code cell that ran last, as a reader of the failed copy finds it."""
    count = sum(cell["cell_type"] == "code" for cell in notebook["cells"])
    ran = _ran(notebook)
    lines = ran[-1]["source"].strip().splitlines() if ran else []
    return f"code cell {len(ran)} of {count}" + (f", {lines[0]:.60}" if lines else "")


def _bytes(notebook: dict[str, Any]) -> bytes:
    import nbformat

    return (nbformat.writes(notebook) + "\n").encode()


def _escape(path: Path) -> str:
    """Papermill formats paths like templates: braces in a folder's name must survive that."""
    return str(path).replace("{", "{{").replace("}", "}}")
