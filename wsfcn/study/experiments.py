"""Experiments: declared once in YAML, expanded into runs, each named by its content.

    name: table1
    recipe: lite_scenes
    rows: table1
    seeds: [0, 1, 2]
    grid: {data.scenes.co_occurrence: [0.0, 1.0]}
    scores: {as trained: {}, labels given: {protocol: {image_labels: true}}}

What a run found is its record (`records.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from .. import recipes
from ..data import build_split, scored
from ..data.sample import Dataset
from ..data.scenes import SceneSet
from ..protocols import Protocol, named, table3
from ..recipes import Recipe
from ..settings import Settings, SettingsError, nearest, read_yaml
from .sources import FOLDER, find_notebook, read_notebook, resolve, schema_of

SUFFIX = ".record.json"
Rows = str | tuple[str, ...] | dict[str, dict[str, Any]]


class Scoring(Settings):
    """How a trained network is scored: changes of the recipe's protocol and data.

    protocol: changes, or the name of a protocol. elsewhere: the objects of the scenes stand on
    grounds of none of their classes.
    """

    protocol: str | dict[str, Any] = Field({})
    data: dict[str, Any] = Field({})
    elsewhere: bool = False

    def protocol_of(self, recipe: Recipe) -> Protocol:
        """The protocol for a recipe's network."""
        if isinstance(self.protocol, str):
            return named(self.protocol)
        return recipe.protocol.change(self.protocol)

    def data_of(self, recipe: Recipe) -> Dataset:
        """The validation images with masks."""
        found = scored(build_split(recipe.data.change(self.data), "val"))
        if not self.elsewhere:
            return found
        from .failures import Drawn

        if not isinstance(found, SceneSet):
            raise SettingsError("scores: elsewhere needs scenes; photos cannot be moved")
        return Drawn.of(found, elsewhere=True)


class Run(Settings):
    """One training with its scores, or one execution of a notebook.

    at: the point of the grid. changed: settings in which the recipe is not the experiment's.
    floor: whether the best-threshold CAM is scored as well.
    """

    row: str
    seed: int
    at: dict[str, Any] = Field({})
    changed: tuple[str, ...] = ()
    recipe: Recipe | None = None
    scores: dict[str, Scoring] = Field({})
    floor: bool = False
    notebook: str = ""
    parameters: dict[str, Any] = Field({})
    cells: str = Field("", description="digest of the notebook's cells")

    @property
    def key(self) -> str:
        """Follows from the content: not from the name of the recipe, nor where photos lie."""
        text = json.dumps(self.told(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def file(self) -> str:
        """The name of the record."""
        return f"{re.sub(r'[^A-Za-z0-9_.=+-]+', '-', self.row)}-s{self.seed}-{self.key}{SUFFIX}"

    def told(self) -> dict[str, Any]:
        """Plain values, without folders of this machine."""
        values = self.model_dump(mode="json")
        values["notebook"] = Path(self.notebook).stem
        if values["recipe"] is not None:
            values["recipe"]["name"] = values["recipe"]["name"].split("/")[0]
            values["recipe"]["data"]["root"] = Path(values["recipe"]["data"]["root"]).name
        return values

    def __str__(self) -> str:
        at = "".join(f", {name.split('.')[-1]} {value}" for name, value in self.at.items())
        return f"{self.row}{at}, seed {self.seed}"


class Part(Settings):
    """Rows by seeds by grid. rows: "table1", "table2" or "variants"; names out of these; or a name
    and its changes each. grid: setting (of a notebook: parameter) -> values."""

    rows: Rows | None = None
    seeds: tuple[int, ...] | None = Field(None, min_length=1)
    grid: dict[str, tuple[Any, ...]] | None = None
    changes: dict[str, Any] = Field({})


class Experiment(Part):
    """A recipe or a notebook, and what is varied. parts: further declarations, in each of which
    what is not given is as here. scores: "table3", or name -> Scoring. measures: those whose
    effects are tabled, along an axis ("row", "score" or a setting of the grid)."""

    name: str = Field(pattern=r"^[\w.-]+$")
    about: str = ""
    recipe: str = ""
    notebook: str = ""
    parts: tuple[Part, ...] = ()
    scores: dict[str, Scoring] | str = Field({"as trained": Scoring()})
    floor: bool = False
    measures: tuple[str, ...] = ()
    along: str = "row"
    baseline: str = ""

    @classmethod
    def read(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Experiment:
        """The experiment of a YAML file, or of a name in the repository's `experiments`.

        Raises FileNotFoundError, or SettingsError that names file and field.
        """
        file, own = Path(path), FOLDER.parent / "experiments"
        if not file.is_file() and (own / f"{path}.yml").is_file():
            file = own / f"{path}.yml"
        if not file.is_file():
            there = [p.stem for p in sorted(own.glob("*.yml"))]
            raise FileNotFoundError(f"{path}: no such experiment; {nearest(file.stem, there)}")
        given = {"name": file.stem, **read_yaml(file)}
        try:
            return cls(**given).change(dict(changes or {}))
        except SettingsError as error:
            raise SettingsError(f"{file}: {error}") from None

    def runs(self, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Run]:
        """All runs, seed by seed, each once; rows, seeds: only these, and the baseline's row.

        Raises SettingsError for a row or seed that is not declared, and for a name or value that
        recipe or notebook do not take.
        """
        if bool(self.recipe) == bool(self.notebook):
            raise SettingsError(f"{self.name}: give a recipe or a notebook, one of them")
        make = self._trainings if self.recipe else self._executions
        found = {
            run.key: run for part in self.parts or (Part(),) for run in make(self._whole(part))
        }
        known = list(dict.fromkeys(run.row for run in found.values()))
        if unknown := [row for row in rows if row not in known]:
            raise SettingsError(f"rows: no {unknown[0]!r}; {nearest(unknown[0], known)}")
        declared = sorted({run.seed for run in found.values()})
        if missing := [seed for seed in seeds if seed not in declared]:
            told = ", ".join(map(str, declared))
            raise SettingsError(f"seeds: {self.name} declares {told}, not {missing[0]}")
        wanted = {*rows, known[0]} if rows else {*known}
        chosen = [run for run in found.values() if run.row in wanted]
        chosen = [run for run in chosen if not seeds or run.seed in seeds]
        return sorted(chosen, key=lambda run: run.seed)

    def _whole(self, part: Part) -> Part:
        """The part with what it does not say filled in."""
        own = {n: getattr(part, n) for n in ("rows", "seeds", "grid")}
        filled = {n: getattr(self, n) if value is None else value for n, value in own.items()}
        filled["seeds"] = filled["seeds"] or (0,)
        return Part(**filled, changes=self.changes | part.changes)

    def _trainings(self, part: Part) -> Iterator[Run]:
        base = recipes.find_recipe(self.recipe)
        whole = base.change(part.changes)
        for at in _points(part.grid or {}):
            here = whole.change({**at, "name": "/".join([base.name, *map(_short, at.items())])})
            rows = _rows_of(part.rows, here)
            first = "baseline" if "baseline" in rows else next(iter(rows), "")
            for row, recipe in rows.items():
                for seed in part.seeds or ():
                    changed = _differences(recipe, whole)
                    scores = self._scores(recipe)
                    seeded = recipe.change({"train.seed": seed})
                    floor = self.floor and row == first and recipe.train.views > 0
                    yield Run(
                        row=row,
                        seed=seed,
                        at=at,
                        changed=changed,
                        recipe=seeded,
                        scores=scores,
                        floor=floor,
                    )

    def _scores(self, recipe: Recipe) -> dict[str, Scoring]:
        if not isinstance(self.scores, str):
            for name, scoring in self.scores.items():
                try:
                    scoring.protocol_of(recipe), recipe.data.change(scoring.data)
                except SettingsError as error:
                    raise SettingsError(f"scores: {name}: {error}") from None
            return self.scores
        if self.scores != "table3":
            raise SettingsError(f"scores: {self.scores!r}; known by name: table3")
        ways = table3(recipe.protocol)
        return {n: Scoring(protocol=way.model_dump(mode="json")) for n, way in ways.items()}

    def _executions(self, part: Part) -> Iterator[Run]:
        path = find_notebook(self.notebook)
        notebook = read_notebook(path)
        schema = schema_of(notebook, path.stem)
        sources = json.dumps([cell["source"] for cell in notebook["cells"]])
        cells = hashlib.sha256(sources.encode()).hexdigest()[:12]
        rows = part.rows if isinstance(part.rows, dict) else {path.stem: {}}
        for at in _points(part.grid or {}):
            for row, own in rows.items():
                for seed in part.seeds or ():
                    given = part.changes | own | at
                    if "seed" in schema.model_fields:
                        given |= {"seed": seed}
                    values = resolve(schema, given)
                    yield Run(
                        row=row,
                        seed=seed,
                        at=at,
                        changed=(*own, *at),
                        notebook=str(path),
                        parameters=values,
                        cells=cells,
                    )


def _points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]


def _short(setting: tuple[str, Any]) -> str:
    name, value = setting
    return f"{name.split('.')[-1]}={re.sub(r'[^0-9A-Za-z.]+', '-', str(value)).strip('-')}"


def _rows_of(rows: Rows | None, base: Recipe) -> dict[str, Recipe]:
    """The recipes of the rows; none: the base alone, as the row "network"."""
    first, second = recipes.table1(base), recipes.table2(base)
    sets = {"table1": first, "table2": {"baseline": first["baseline"]} | second}
    sets["variants"] = {"network": base} | recipes.variants(base)
    known = {"network": base} | recipes.variants(base) | second | first
    if rows is None:
        return {"network": base}
    if isinstance(rows, str):
        if rows not in sets:
            raise SettingsError(f"rows: {rows!r}; known by name: {', '.join(sets)}")
        return sets[rows]
    if isinstance(rows, dict):
        return {row: base.change({"name": f"{base.name}/{row}", **c}) for row, c in rows.items()}
    if unknown := [row for row in rows if row not in known]:
        raise SettingsError(f"rows: no {unknown[0]!r}; {nearest(unknown[0], known)}")
    return {row: known[row] for row in rows}


def _differences(recipe: Recipe, base: Recipe) -> tuple[str, ...]:
    """The settings, dotted, in which two recipes differ; the name is none."""

    def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    other = dict(leaves(base.model_dump(mode="json")))
    own = leaves(recipe.model_dump(mode="json"))
    return tuple(name for name, value in own if name != "name" and value != other[name])
