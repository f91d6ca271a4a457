"""The command line: `wsfcn train | evaluate | segment | run | params | data | weights`.

Exit codes: 0 done; 1 some photos of several failed; 2 a wrong argument or input, said in one
line; 3 a fault of the program; 130 interrupted. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .files import check_output_folder

if TYPE_CHECKING:
    from .model.network import Network
    from .recipes import Data

OWN_OUTPUT = (".overlay.png", ".mask.png")


def train(argv: list[str]) -> int:
    """`wsfcn train RECIPE [flags]`."""
    from . import flags, recipes

    if not argv or argv[0] in ("-h", "--help"):
        print("usage: wsfcn train RECIPE [flags]    (wsfcn train RECIPE --help lists the flags)")
        print(f"RECIPE: {', '.join(flags.known_recipes())};")
        print(f"        with /ROW for a row of Table I: {', '.join(recipes.table1())};")
        print(f"        of Table II: {', '.join(recipes.table2())};")
        print(f"        or a variant of the method: {', '.join(recipes.VARIANTS)}")
        return 0
    start = flags.TrainArguments(flags.find_recipe(argv[0]))
    arguments = flags.parse(flags.TrainArguments, f"train {argv[0]}", argv[1:], start)
    recipe = arguments.recipe
    if arguments.data is not None:
        if recipe.data.kind == "scenes":
            raise ValueError(f"--data: {recipe.name} draws its images; photos need lite_folder")
        recipe = recipe.change({"data.root": str(arguments.data)})
    folder = check_output_folder(arguments.out or Path("runs") / recipe.name.replace("/", "-"))
    from .train import train as run_training

    result = run_training(recipe, folder, resume=arguments.resume)
    print(result.score)
    print(f"model: {folder / 'model.safetensors'}")
    return 0


def evaluate(argv: list[str]) -> int:
    """`wsfcn evaluate MODEL [flags]`."""
    from . import flags

    arguments = flags.parse(flags.EvaluateArguments, "evaluate", argv)
    for file in (arguments.json, arguments.tar, arguments.confusion):
        if file is not None:
            _check_output_file(file)
    if arguments.save is not None:
        check_output_folder(arguments.save)
    elif arguments.tar is not None:
        raise ValueError("--tar packs the masks of --save; give both")
    if arguments.table and (arguments.save or arguments.confusion):
        raise ValueError("--table makes several scores; --save and --confusion need one")
    model = _load(arguments.model)
    from .data import build_split, scored

    more = {}
    if arguments.image_labels is not None:
        more["image_labels"] = arguments.image_labels == "on"
    protocol = arguments.protocol.applied(model.recipe.protocol, **more)
    split, settings = arguments.split, model.recipe.data
    if arguments.data is not None:
        settings = _other_photos(arguments, model)
    if split not in ("train", "val"):
        if settings.kind == "scenes":
            raise ValueError(f"split: scenes have train and val, not {split!r}")
        settings = settings.change({"val_split": split})
    whole = build_split(settings, "train" if split == "train" else "val")
    data = scored(whole)
    if arguments.table:
        return _table3(arguments, model, data, protocol)
    from . import results
    from .evaluate import evaluate as score_of
    from .evaluate import write_masks

    options = {name: getattr(arguments, name) for name in ("limit", "size", "processes")}
    if not len(data):
        if arguments.save is None:
            raise ValueError(f"split {split} has no masks to score with; --save writes predictions")
        data = whole
        write_masks(model, data, arguments.save, protocol, **options)
        print(f"masks: {arguments.save}")
    else:
        score = score_of(model, data, protocol, save=arguments.save, **options)
        print(score.table(markdown=arguments.markdown))
        if arguments.json is not None:
            score.save(arguments.json)
        if arguments.confusion is not None:
            from .show.confusion import confusion_map

            arguments.confusion.parent.mkdir(parents=True, exist_ok=True)
            confusion_map(score).savefig(arguments.confusion, format="png")
    if arguments.tar is not None:
        assert arguments.save is not None  # seen to above
        print(
            f"tar: {results.voc_tar(arguments.save, results.names_of(data), arguments.tar, split)}"
        )
    return 0


def _other_photos(arguments: Any, model: Network) -> Data:
    """The settings of --data: the classes of the model, in its order, all photos of a split."""
    from .data.check import layout_of
    from .recipes import Data

    kind = arguments.kind or layout_of(arguments.data)
    return Data(
        kind=kind,
        root=str(arguments.data),
        labels="csv" if kind == "folder" else "masks",
        classes=model.classes,
        train=0,
        val=0,
    )


def _table3(arguments: Any, model: Network, data: Any, protocol: Any) -> int:
    """`wsfcn evaluate MODEL --table 3`."""
    import json

    from .evaluate import compare
    from .evaluate import evaluate as score_of
    from .files import write_all
    from .protocols import table3

    options = {name: getattr(arguments, name) for name in ("limit", "size", "processes")}
    rows = {name: score_of(model, data, p, **options) for name, p in table3(protocol).items()}
    print(compare(rows, across_protocols=True, markdown=arguments.markdown))
    if arguments.json is not None:
        text = json.dumps({name: row.to_dict() for name, row in rows.items()}, indent=1) + "\n"
        write_all(arguments.json.parent, {arguments.json.name: text.encode()})
    return 0


def segment(argv: list[str]) -> int:
    """`wsfcn segment PHOTO... [flags]`."""
    from . import flags

    arguments = flags.parse(flags.SegmentArguments, "segment", argv)
    if not arguments.photos:
        raise ValueError("segment needs a photo or a folder of photos")
    out = check_output_folder(arguments.out)
    photos, missing = _collect(arguments.photos)
    for problem in missing:
        _complain(problem)
    if not photos:
        return 2
    stems = _stems(photos)
    if arguments.labels is not None and not arguments.labels.is_file():
        raise FileNotFoundError(f"{arguments.labels}: no such label file")
    model = _load(arguments.model)
    from tqdm import tqdm

    from .data.images import ImageError
    from .data.labels import LabelError, read_labels
    from .predict import segment as segment_photo
    from .predict import working_size
    from .show.gallery import Gallery
    from .show.segmentation import percent

    base = model.recipe.protocol
    protocol = arguments.protocol.applied(base, image_labels=arguments.labels is not None)
    size = working_size(model, arguments.size)
    labels = read_labels(arguments.labels, model.classes, photos) if arguments.labels else None
    failed = len(missing)
    gallery = Gallery() if arguments.page else None
    for photo in tqdm(photos, desc="segment", unit="photo", disable=len(photos) < 2):
        try:
            known = None if labels is None else labels.get(photo.resolve())
            if labels is not None and known is None:
                raise LabelError(f"{photo}: has no line in {arguments.labels}")
            with _notes_about(photo):
                result = segment_photo(model, photo, protocol, size=size, labels=known)
            overlay, _, _ = result.save(out, stems[photo], protected=photos)
        except (ImageError, LabelError, OSError, MemoryError) as error:
            failed += 1
            _complain(_message(error))
        else:
            if gallery is not None:
                gallery.add(result, photo.name)
            areas = result.areas()
            found = ", ".join(f"{name} {percent(areas[name])}" for name in result.found)
            line = f"{photo}: {found or 'no class found'} -> {overlay}"
            tqdm.write(_printable(line), file=sys.stdout)
    if failed == len(photos) + len(missing):
        return 2
    if gallery is not None:
        print(f"page: {gallery.save(out)}")
    return 1 if failed else 0


def run(argv: list[str]) -> int:
    """`wsfcn run NOTEBOOK [-p NAME VALUE]... [-y FILE]`."""
    from . import flags

    arguments = flags.parse(flags.RunArguments, "run", argv)
    out = check_output_folder(arguments.out)
    parameters = _read_parameters(arguments.file) if arguments.file is not None else {}
    parameters |= dict(arguments.parameters)
    from .study.notebooks import run_notebook

    done = run_notebook(
        arguments.notebook, parameters, out, profile=arguments.profile, again=arguments.again
    )
    print(done)
    return 0


def params(argv: list[str]) -> int:
    """`wsfcn params [--table 1|2] [--json]`."""
    from . import flags

    arguments = flags.parse(flags.ParamsArguments, "params", argv)
    import json

    from .study.params import as_json, as_text, parameter_rows

    rows = parameter_rows(arguments.table)
    print(json.dumps(as_json(rows), indent=1) if arguments.json else as_text(rows))
    return 0


def weights(argv: list[str]) -> int:
    """`wsfcn weights import FILE.pth OUT.safetensors` and `wsfcn weights export MODEL OUT.pth`."""
    from . import flags

    if not argv or argv[0] not in flags.WEIGHTS:
        usage = "usage: wsfcn weights import FILE.pth OUT.safetensors [--recipe RECIPE]\n"
        usage += "       wsfcn weights export MODEL.safetensors OUT.pth"
        if not argv or argv[0] in ("-h", "--help"):
            print(usage)
            return 0
        hint = flags.nearest(argv[0], flags.WEIGHTS)
        raise ValueError(f"no command 'weights {argv[0]}'; {hint}")
    arguments = flags.parse(flags.WEIGHTS[argv[0]], f"weights {argv[0]}", argv[1:])
    _check_output_file(arguments.out)
    if arguments.out.exists():
        raise FileExistsError(f"{arguments.out}: exists already; name another file")
    from . import published

    if isinstance(arguments, flags.ImportArguments):
        recipe = flags.find_recipe(arguments.recipe) if arguments.recipe else None
        print(published.convert(arguments.file, arguments.out, recipe))
    else:
        published.save(_load(arguments.model), arguments.out)
        print(f"{arguments.out}: sha256 {published.sha256(arguments.out)}")
    return 0


def data(argv: list[str]) -> int:
    """`wsfcn data fetch NAME` and `wsfcn data check DIR`."""
    from .cli_data import data as run_command

    return run_command(argv)


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (train, "train a recipe from image labels"),
    "evaluate": (evaluate, "score the masks of a model on the data of its recipe"),
    "segment": (segment, "segment photos: overlay with legend, index mask and JSON for each"),
    "run": (run, "execute a notebook with checked parameters"),
    "params": (params, "parameters and FLOPs of the paper's networks, beside its tables"),
    "data": (data, "fetch a published data set, or check one for what is wrong with it"),
    "weights": (weights, "import the authors' weight files, or export to their layout"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. WSFCN_DEBUG=1 shows the traceback of an error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"wsfcn {__version__}")
        return 0
    try:
        if arguments[0] not in COMMANDS:
            from .flags import nearest

            raise ValueError(f"no command {arguments[0]!r}; {nearest(arguments[0], COMMANDS)}")
        return COMMANDS[arguments[0]][0](arguments[1:])
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output has left
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 141
    except Exception as error:
        if os.environ.get("WSFCN_DEBUG"):
            raise
        kinds = (OSError, ValueError, FloatingPointError, ImportError, MemoryError)
        expected = isinstance(error, kinds)
        if expected or type(error).__module__.split(".")[0] == "wsfcn":
            _complain(_message(error))
            return 2
        kind = type(error).__name__
        _complain(f"{kind}: {_message(error)} (a fault of wsfcn; WSFCN_DEBUG=1 shows where)")
        return 3


def _overview() -> str:
    lines = ["usage: wsfcn COMMAND ...    (wsfcn COMMAND --help lists its flags)", ""]
    return "\n".join([*lines, *(f"  {name:<9} {text}" for name, (_, text) in COMMANDS.items())])


def _load(name: str) -> Network:
    """The network, on a GPU where there is one."""
    import torch

    from .build import load

    return load(name).to("cuda" if torch.cuda.is_available() else "cpu")


def _check_output_file(path: Path) -> None:
    check_output_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give a file name")


def _collect(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Photos in the order given, folders expanded, each photo once; and what is wrong with paths.

    Results of an earlier run that lie in a folder are no photos.
    """
    from .data.images import ImageError, list_images

    photos: dict[Path, Path] = {}
    problems = []
    for path in paths:
        try:
            found = list_images(path)
        except ImageError as error:
            problems.append(str(error))
            continue
        for photo in found:
            if photo == path or not photo.name.endswith(OWN_OUTPUT):
                photos.setdefault(photo.resolve(), photo)
    return list(photos.values()), problems


def _stems(photos: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of each photo; photos of equal stem get their suffix or a number."""
    stems: dict[Path, str] = {}
    taken: set[str] = set()
    for photo in photos:
        stem, number = photo.stem, 2
        if stem in taken:
            stem = f"{photo.stem}_{photo.suffix.lstrip('.')}"
        while stem in taken:
            stem, number = f"{photo.stem}_{number}", number + 1
        taken.add(stem)
        stems[photo] = stem
    return stems


def _read_parameters(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not YAML ({error})") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError(f"{path}: needs lines of 'name: value'")
    return values


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _complain(message: str) -> None:
    """One line on stderr, whatever the message holds, and not in the middle of a progress bar."""
    bars = sys.modules.get("tqdm")
    with bars.tqdm.external_write_mode(file=sys.stderr) if bars else nullcontext():
        print(f"wsfcn: {_printable(message)}", file=sys.stderr)


def _printable(text: str) -> str:
    """The text on one line, control characters and broken names escaped."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


@contextmanager
def _notes_about(photo: Path) -> Iterator[None]:
    """Warnings about the photo, such as that it is animated, become lines like errors."""
    usual = warnings.showwarning

    def show(message: Warning | str, *rest: Any, **named: Any) -> None:
        if str(message).startswith(str(photo)):
            _complain(f"note: {message}")
        else:
            usual(message, *rest, **named)  # type: ignore[arg-type]

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
