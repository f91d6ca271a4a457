"""The commands `wsfcn run`, `wsfcn sweep` and `wsfcn table`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

from . import flags
from .files import check_output_folder, write_all
from .settings import read_yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .study.ablations import Lines
    from .study.experiments import Experiment


@dataclass(frozen=True)
class RunArguments:
    """Execute a notebook with parameters that are checked before it starts.

    Copy, records and figures go into a folder of --out that is named by notebook, parameters,
    data and code: what was run before is found there.
    """

    notebook: Annotated[Positional[str], arg(metavar="NOTEBOOK")]
    """The .ipynb file, or the name of one of the course."""
    parameters: Annotated[UseAppendAction[tuple[tuple[str, str], ...]], arg(aliases=["-p"])] = ()
    """NAME VALUE; give it again for another parameter."""
    file: Annotated[Path | None, arg(aliases=["-y"])] = None
    """YAML file of parameters; those of -p win."""
    profile: Literal["smoke", "laptop", "paper"] | None = None  # Amount of work; default smoke
    out: Path = Path("runs/notebooks")  # Folder of the run's folder
    again: bool = False  # Execute also what was run before
    cell_seconds: float | None = None
    """Most seconds that a cell may take; default 180 in smoke, 1800 in laptop, else no limit."""


@dataclass(frozen=True)
class SweepArguments:
    """Do all runs of an experiment that have no record yet, then print its table.

    Stopped, however, it goes on where it was when it is started again.
    """

    experiment: Annotated[Positional[str], arg(metavar="SPEC.yml")]
    """The declaration, or the name of one in experiments/."""
    rows: tuple[str, ...] = ()  # Only these rows, and the first
    seeds: tuple[int, ...] = ()  # Only these of the declared seeds
    data: Annotated[Path | None, arg(metavar="DIR")] = None  # Folder of the photos: data.root
    recipe: str | None = None  # Another recipe than the declared one, such as smoke_scenes
    jobs: int = 0  # Runs at a time; default one a GPU, else one a core, at most 8
    scheduler: Annotated[str, arg(metavar="ADDRESS")] = ""
    """Do the runs on the Dask cluster of this scheduler, such as tcp://host:8786."""
    again: bool = False  # Score also what has a record; trainings are still read back
    out: Path | None = None  # Folder of the records; default runs/experiments/NAME
    dry: bool = False  # Only list the runs


@dataclass(frozen=True)
class TableArguments:
    """Tables of records: means over seeds with intervals, gains over the baseline, the paper's."""

    records: Annotated[Positional[tuple[Path, ...]], arg(metavar="RECORDS...")]
    """Experiments (SPEC.yml or a name), folders of records, files of records, bundles."""
    measures: tuple[str, ...] = ()  # Measures whose gains are tabled; default the experiment's
    along: str | None = None
    """What the rows of a table are: row, score or a setting of the grid."""
    baseline: str = ""  # The row that gains count from
    scores: tuple[str, ...] = ()  # Only these scores
    format: Literal["markdown", "latex", "html", "csv"] = "markdown"  # csv: the tidy frame
    out: Path | None = None  # Write the table to this file
    bundle: Path | None = None  # Also write all records to this file
    picture: Path | None = None
    """Also draw them to this PNG: gains with intervals, or the measures along the grid."""


def run(argv: list[str]) -> int:
    """`wsfcn run`."""
    given = flags.parse(RunArguments, "run", argv)
    out = check_output_folder(given.out)
    parameters = read_yaml(given.file) if given.file is not None else {}
    parameters |= dict(given.parameters)
    from .study.notebooks import run_notebook

    options: dict[str, Any] = {"profile": given.profile, "again": given.again, "keyed": True}
    limit = given.cell_seconds
    print(run_notebook(given.notebook, parameters, out, cell_seconds=limit, **options))
    return 0


def sweep(argv: list[str]) -> int:
    """`wsfcn sweep`."""
    given = flags.parse(SweepArguments, "sweep", argv)
    from .stop import Stop
    from .study.ablations import read
    from .study.experiments import Experiment
    from .study.sweep import sweep as do_runs
    from .study.table import HOME, table_of

    changes: dict[str, Any] = {} if given.recipe is None else {"recipe": given.recipe}
    experiment = Experiment.read(given.experiment, changes)
    if given.data is not None:
        root = str(given.data.expanduser().absolute())
        experiment = experiment.change({"changes": experiment.changes | {"data.root": root}})
    runs = experiment.runs(given.rows, given.seeds)
    if given.dry:
        print("\n".join([*map(str, runs), f"{len(runs)} runs"]))
        return 0
    folder = given.out or HOME / experiment.name
    options: dict[str, Any] = {"jobs": given.jobs, "scheduler": given.scheduler}
    with Stop("the same command goes on"):
        do_runs(runs, folder, again=given.again, **options)
    print(table_of(experiment, read(folder)))
    return 0


def table(argv: list[str]) -> int:
    """`wsfcn table`."""
    given = flags.parse(TableArguments, "table", argv)
    from .study.ablations import read
    from .study.experiments import Experiment
    from .study.records import bundle, records_of
    from .study.table import HOME, table_of

    declared: list[Experiment] = []
    places = []
    for path in given.records:
        if path.is_dir() or path.suffix == ".json":
            places.append(path)
        else:
            declared.append(Experiment.read(path))
            places.append(HOME / declared[-1].name)
    lines = [line for line in read(*places) if not given.scores or line["score"] in given.scores]
    first = declared[0] if declared else Experiment(name="records")
    changes = {"measures": given.measures, "along": given.along, "baseline": given.baseline}
    chosen = first.change({name: value for name, value in changes.items() if value})
    if given.bundle is not None:
        found = {record["key"]: record for place in places for record in records_of(place)}
        bundle([*found.values()], given.bundle, chosen.measures)
    text = table_of(chosen, lines, given.format)
    if given.picture is not None:
        check_output_folder(given.picture.parent).mkdir(parents=True, exist_ok=True)
        _picture(chosen, lines).savefig(given.picture, format="png")
    if given.out is None:
        print(text)
    else:
        write_all(given.out.parent, {given.out.name: f"{text}\n".encode()})
    return 0


def _picture(experiment: Experiment, lines: Lines) -> Figure:
    """Measures along a grid of numbers, or else the gains of the first score."""
    from .settings import SettingsError
    from .show.ablations import effect_plot, grid_plot
    from .study.ablations import effects, frame, gains, interval

    table, along = frame(lines), experiment.along
    measures = experiment.measures or ("mIoU",)
    grid = [name for name in lines[0]["at"] if name != along]
    if len(grid) > 1:
        raise SettingsError(f"picture: there are no pictures of a grid of {' by '.join(grid)}")
    if grid:
        return grid_plot(table, grid[0], measures, interval)
    first = [line for line in lines if along == "score" or line["score"] == lines[0]["score"]]
    base = experiment.baseline or str(first[0][along])
    tables = {m: gains(frame(first), m, base, along) for m in measures}
    found = effects(first, base, measures[0], along).drop(index=base)
    told = dict(found.get("paper", found["gain"] * float("nan")).dropna())
    ends = found.reindex(columns=["images low", "images high"])  # notebooks count no images
    images = {row: tuple(pair) for row, pair in ends.iterrows()}
    return effect_plot(tables, {measures[0]: told}, interval, images)
