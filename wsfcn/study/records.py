"""Records: what each run of an experiment found, a file of JSON each, or many in a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_all
from .experiments import SUFFIX, Run
from .measures import PROBLEMS


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Keep a record in an experiment's folder, whole or not at all."""
    name = Run(**record["run"]).file
    text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    return write_all(folder, {name: f"{text}\n".encode()})[0]


def records_of(path: str | Path) -> list[dict[str, Any]]:
    """The records of a file (one, or a bundle) or of all in a folder, with their keys of today.

    A record of an older version gets the key that its run has now. Raises ValueError naming a
    file that holds no records.
    """
    path = Path(path)
    if path.is_dir():
        return [record for p in sorted(path.glob(f"*{SUFFIX}")) for record in records_of(p)]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        records: list[dict[str, Any]] = content["records"] if "run" not in content else [content]
        for record in records:
            record["key"] = Run(**record["run"]).key
            _ = record["scores"], record["metrics"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: holds no records of an experiment ({error})") from None
    return records


def bundle(
    records: Sequence[Mapping[str, Any]], path: Path, measures: Sequence[str] = PROBLEMS
) -> None:
    """All records as one file, a line each, for keeping beside tables of these measures.

    Without any of the PROBLEMS, their sums by image, half of a record, are left out.
    """
    if not {*PROBLEMS} & {*measures}:
        records = [r | {"scores": _without_problems(r["scores"])} for r in map(dict, records)]
    lines = ",\n".join(json.dumps(r, separators=(",", ":"), allow_nan=False) for r in records)
    write_all(path.parent, {path.name: f'{{"records":[\n{lines}\n]}}\n'.encode()})


def _without_problems(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {n: {k: v for k, v in s.items() if k != "problems"} for n, s in scores.items()}
