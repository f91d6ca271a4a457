"""The command line: `wsfcn COMMAND ...`, see COMMANDS.

Exit codes: 0 done; 1 some photos of several failed; 2 a wrong argument or input, said in one
line; 3 a fault of the program; 130 interrupted; 143 terminated. Heavy imports wait until a command
needs them.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .files import check_output_folder, write_all
from .stop import Stop

if TYPE_CHECKING:
    from .flags import EvaluateArguments
    from .model.network import Network
    from .recipes import Data

OWN_OUTPUT = (".overlay.png", ".mask.png")


def train(argv: list[str]) -> int:
    """Train a recipe from image labels."""
    from . import flags, recipes

    if not argv or argv[0] in ("-h", "--help"):
        print(
            "usage: wsfcn train RECIPE [flags]    (wsfcn train RECIPE --help lists the flags)\n"
            "       wsfcn train --resume RUN [flags]    go on with the run in this folder\n"
            f"RECIPE: {', '.join(recipes.known_recipes())};\n"
            f"        with /ROW for a row of Table I: {', '.join(recipes.table1())};\n"
            f"        of Table II: {', '.join(recipes.table2())};\n"
            f"        or a variant of the method: {', '.join(recipes.VARIANTS)}"
        )
        return 0
    if argv[0] == "--resume":
        if len(argv) < 2 or argv[1].startswith("-"):
            raise ValueError("--resume: needs the folder of a run: wsfcn train --resume RUN")
        from .runs import read_recipe

        place = Path(argv[1])
        start = flags.TrainArguments(read_recipe(place), out=place, resume=True)
        given = flags.parse(flags.TrainArguments, f"train --resume {argv[1]}", argv[2:], start)
        if given.out != place:
            raise ValueError(f"--out: --resume goes on in {place}")
    else:
        start = flags.TrainArguments(recipes.find_recipe(argv[0]))
        given = flags.parse(flags.TrainArguments, f"train {argv[0]}", argv[1:], start)
    recipe = given.recipe
    if given.data is not None:
        if recipe.data.kind == "scenes":
            raise ValueError(f"--data: {recipe.name} draws its images; photos need lite_folder")
        recipe = recipe.change({"data.root": str(given.data)})
    folder = check_output_folder(given.out or Path("runs") / recipe.name.replace("/", "-"))
    from .allocation import keep_freed_memory
    from .train import train as run_training

    keep_freed_memory()

    options = {name: getattr(given, name) for name in ("resume", "every", "keep", "bad")}
    print(run_training(recipe, folder, **options).score)
    print(f"model: {folder / 'model.safetensors'}")
    return 0


def evaluate(argv: list[str]) -> int:
    """Score the masks of a model on the data of its recipe, or others."""
    from . import flags

    given = flags.parse(flags.EvaluateArguments, "evaluate", argv)
    for file in filter(None, (given.json, given.tar, given.confusion)):
        _check_output_file(file)
    if given.save is not None:
        check_output_folder(given.save)
    elif given.tar is not None:
        raise ValueError("--tar packs the masks of --save; give both")
    if given.table and (given.save or given.confusion):
        raise ValueError("--table makes several scores; --save and --confusion need one")
    model = _load(given.model)
    from . import results
    from .data import build_split, scored
    from .evaluate import compare, write_masks
    from .evaluate import evaluate as score_of
    from .protocols import table3

    protocol = given.protocol.applied(model.recipe.protocol, image_labels=given.image_labels)
    whole = build_split(_scored_data(given, model), "train" if given.split == "train" else "val")
    data = scored(whole)
    options = {name: getattr(given, name) for name in ("limit", "size", "processes")}
    if given.table:
        rows = {name: score_of(model, data, p, **options) for name, p in table3(protocol).items()}
        print(compare(rows, across_protocols=True, markdown=given.markdown))
        if given.json is not None:
            text = json.dumps({name: row.to_dict() for name, row in rows.items()}, indent=1)
            write_all(given.json.parent, {given.json.name: f"{text}\n".encode()})
        return 0
    if len(data):
        score = score_of(model, data, protocol, save=given.save, **options)
        print(score.table(markdown=given.markdown))
        if given.json is not None:
            score.save(given.json)
        if given.confusion is not None:
            from .show.confusion import confusion_map

            given.confusion.parent.mkdir(parents=True, exist_ok=True)
            confusion_map(score).savefig(given.confusion, format="png")
    elif given.save is not None:
        data = whole
        write_masks(model, data, given.save, protocol, **options)
        print(f"masks: {given.save}")
    else:
        raise ValueError(f"split {given.split} has no masks to score; --save writes predictions")
    if given.save is not None and given.tar is not None:
        file = results.voc_tar(given.save, results.names_of(data), given.tar, given.split)
        print(f"tar: {file}")
    return 0


def _scored_data(given: EvaluateArguments, model: Network) -> Data:
    """The data of the recipe, or those of --data with the classes of the model."""
    from .data.check import layout_of

    data = model.recipe.data
    if given.data is not None:
        kind = given.kind or layout_of(given.data)
        labels = "csv" if kind == "folder" else "masks"
        changes = {"kind": kind, "root": str(given.data), "labels": labels, "train": 0, "val": 0}
        data = type(data)().change(changes | {"classes": model.classes, "others": data.others})
    if given.split in ("train", "val"):
        return data
    if data.kind == "scenes":
        raise ValueError(f"split: scenes have train and val, not {given.split!r}")
    return data.change({"val_split": given.split})


def segment(argv: list[str]) -> int:
    """Segment photos: overlay with legend, index mask and JSON for each."""
    from . import flags

    given = flags.parse(flags.SegmentArguments, "segment", argv)
    if not given.photos:
        raise ValueError("segment needs a photo or a folder of photos")
    out = check_output_folder(given.out)
    photos, missing = _collect(given.photos)
    if not photos:
        return 2
    if given.labels is not None and not given.labels.is_file():
        raise FileNotFoundError(f"{given.labels}: no such label file")
    model = _load(given.model)
    from tqdm import tqdm

    from .data.images import ImageError
    from .data.labels import LabelError, read_labels
    from .predict import at_size
    from .predict import segment as segment_photo
    from .show.gallery import Gallery
    from .show.segmentation import percent

    protocol = given.protocol.applied(model.recipe.protocol, image_labels=given.labels is not None)
    protocol, size = at_size(model, protocol, given.size)
    labels = read_labels(given.labels, model.classes, photos) if given.labels else None
    failed, gallery, stems = missing, Gallery(), _stems(photos)
    for photo in tqdm(photos, desc="segment", unit="photo", disable=len(photos) < 2):
        try:
            known = None if labels is None else labels.get(photo.resolve())
            if labels is not None and known is None:
                raise LabelError(f"{photo}: has no line in {given.labels}")
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always", UserWarning)
                result = segment_photo(model, photo, protocol, size=size, labels=known)
            for note in notes:  # such as that it is animated
                _complain(f"note: {note.message}")
            overlay, _, _ = result.save(out, stems[photo], protected=photos)
        except (ImageError, LabelError, OSError, MemoryError) as error:
            failed += 1
            _complain(_message(error))
        else:
            if given.page:
                gallery.add(result, photo.name)
            areas = result.areas()
            found = ", ".join(f"{name} {percent(areas[name])}" for name in result.found)
            line = f"{photo}: {found or 'no class found'} -> {overlay}"
            tqdm.write(_printable(line), file=sys.stdout)
    if failed == len(photos) + missing:
        return 2
    if given.page:
        print(f"page: {gallery.save(out)}")
    return 1 if failed else 0


def run(argv: list[str]) -> int:
    """Execute a notebook with checked parameters."""
    from .cli_study import run as run_command

    return run_command(argv)


def sweep(argv: list[str]) -> int:
    """Do the runs of a declared experiment, here or on a cluster."""
    from .cli_study import sweep as run_command

    return run_command(argv)


def table(argv: list[str]) -> int:
    """Tables of an experiment's records, with intervals."""
    from .cli_study import table as run_command

    return run_command(argv)


def params(argv: list[str]) -> int:
    """Parameters and FLOPs of the paper's networks, beside its tables."""
    from . import flags

    given = flags.parse(flags.ParamsArguments, "params", argv)
    from .study.params import as_json, as_text, parameter_rows

    rows = parameter_rows(given.table)
    print(as_json(rows) if given.json else as_text(rows))
    return 0


def weights(argv: list[str]) -> int:
    """Import the authors' weight files, or export to their layout."""
    from . import flags

    if not argv or argv[0] in ("-h", "--help"):
        print("usage: wsfcn weights import FILE.pth OUT.safetensors [--recipe RECIPE]")
        print("       wsfcn weights export MODEL.safetensors OUT.pth")
        return 0
    if argv[0] not in flags.WEIGHTS:
        from .settings import nearest

        hint = nearest(argv[0], flags.WEIGHTS)
        raise ValueError(f"no command 'weights {argv[0]}'; {hint}")
    given = flags.parse(flags.WEIGHTS[argv[0]], f"weights {argv[0]}", argv[1:])
    _check_output_file(given.out)
    if given.out.exists():
        raise FileExistsError(f"{given.out}: exists already; name another file")
    from . import published, recipes

    if isinstance(given, flags.ImportArguments):
        recipe = recipes.find_recipe(given.recipe) if given.recipe else None
        print(published.convert(given.file, given.out, recipe))
    else:
        published.save(_load(given.model), given.out)
        print(f"{given.out}: sha256 {published.sha256(given.out)}")
    return 0


def data(argv: list[str]) -> int:
    """Fetch a published data set, or check one for what is wrong with it."""
    from .cli_data import data as run_command

    return run_command(argv)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    command.__name__: command
    for command in (train, evaluate, segment, run, sweep, table, params, data, weights)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. WSFCN_DEBUG=1 shows the traceback of an error."""
    code = _main(argv)
    group = sys.modules.get("torch.distributed")
    if group is not None and group.is_available() and group.is_initialized():
        # Tearing gloo down aborts a process now and then, or lets it wait for ever.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: wsfcn COMMAND ...    (wsfcn COMMAND --help lists its flags)\n")
        for name, command in COMMANDS.items():
            print(f"  {name:<9} {command.__doc__}")
        return 0
    if arguments[0] == "--version":
        print(f"wsfcn {__version__}")
        return 0
    try:
        if arguments[0] not in COMMANDS:
            from .settings import nearest

            raise ValueError(f"no command {arguments[0]!r}; {nearest(arguments[0], COMMANDS)}")
        with Stop():
            return COMMANDS[arguments[0]](arguments[1:])
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted")
        return getattr(error, "code", 130)
    except BrokenPipeError:  # the reader of our output has left
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 141
    except Exception as error:
        if os.environ.get("WSFCN_DEBUG"):
            raise
        kinds = (OSError, ValueError, FloatingPointError, ImportError, MemoryError)
        if isinstance(error, kinds) or type(error).__module__.startswith("wsfcn."):
            _complain(_message(error))
            return 2
        fault = f"{type(error).__name__}: {_message(error)}"
        _complain(f"{fault} (a fault of wsfcn; WSFCN_DEBUG=1 shows where)")
        return 3


def _load(name: str) -> Network:
    """The network, on a GPU where there is one."""
    import torch

    from .build import load

    return load(name).to("cuda" if torch.cuda.is_available() else "cpu")


def _check_output_file(path: Path) -> None:
    check_output_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give a file name")


def _collect(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Photos in the order given, folders expanded, each once; how many paths are wrong. Results
    of an earlier run that lie in a folder are no photos."""
    from .data.images import ImageError, list_images

    photos: dict[Path, Path] = {}
    wrong = 0
    for path in paths:
        try:
            for photo in list_images(path):
                if photo == path or not photo.name.endswith(OWN_OUTPUT):
                    photos.setdefault(photo.resolve(), photo)
        except ImageError as error:
            _complain(str(error))
            wrong += 1
    return list(photos.values()), wrong


def _stems(photos: Sequence[Path]) -> dict[Path, str]:
    """A name for the results of each photo; photos of equal stem get their suffix or a number."""
    stems: dict[str, Path] = {}
    for photo in photos:
        numbers = (f"_{n}" for n in itertools.count(2))
        ends = itertools.chain(("", f"_{photo.suffix.lstrip('.')}"), numbers)
        stems[next(photo.stem + end for end in ends if photo.stem + end not in stems)] = photo
    return {photo: stem for stem, photo in stems.items()}


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
