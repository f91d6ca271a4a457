"""Flags of the command line: derived from the settings, parsed by tyro, complained in one line."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import Positional, arg

from .protocols import Protocol, named
from .recipes import Recipe
from .settings import SettingsError

T = TypeVar("T")
Switch = Literal["on", "off"]


@dataclass(frozen=True)
class ProtocolFlags:
    """How masks are made; what is not given is as in the recipe of the model."""

    protocol: str | None = None
    """A named protocol, e.g. paper_gt_labels, baseline+crf+canvas; the other flags change it."""
    scales: tuple[float, ...] = ()  # Image scales that are averaged, e.g. 0.5 1 1.5
    flip: Switch | None = None  # Average with the mirrored image
    padding: Literal["none", "canvas"] | None = None
    """Each scale at its own size, or on the released code's padded canvas."""
    canvas: int | None = None  # Side of the canvas in px
    class_filter: float | None = None  # Drop classes whose probability is not above this
    background: Literal["softmax", "constant", "power"] | None = None
    """Background map: the network's own, a constant, or the network's to a power."""
    background_value: float | None = None  # The constant or the power
    pamr: int | None = None  # Iterations of PAMR on the masks, 0 for none
    crf: Literal["none", "wsfcn", "baseline"] | None = None
    """Fully connected CRF, as the released WS-FCN or the released baseline sets it."""
    crf_code: Literal["auto", "pydensecrf", "torch"] | None = None
    """What computes the CRF; auto: torch on a GPU or where pydensecrf is not installed."""

    def applied(self, base: Protocol, image_labels: bool | Switch | None = None) -> Protocol:
        """The protocol with the given flags changed, renamed if anything changed."""
        if self.background in ("constant", "power") and self.background_value is None:
            raise SettingsError(f"--background {self.background} needs --background-value")
        given = {**asdict(self), "image_labels": image_labels}
        switch = {"on": True, "off": False}
        changes = {k: switch.get(v, v) for k, v in given.items() if v not in (None, ())}
        name = changes.pop("protocol", None)
        base = base if name is None else named(name)
        changed = base.change(changes)
        if changed == base:
            return base
        scales = "x".join(f"{s:g}" for s in changed.scales)
        name = "single-scale" if changed.scales == (1.0,) else f"scales {scales}"
        name += "+flip" if changed.flip else ""
        name += "+canvas" if changed.padding == "canvas" else ""
        name += "+PAMR" if changed.pamr else ""
        name += "+CRF" if changed.crf != "none" else ""
        name += ", labels given" if changed.image_labels else ""
        return changed.change({"name": name})


@dataclass(frozen=True)
class TrainArguments:
    """Train a recipe from image labels; every setting of the recipe is a flag."""

    recipe: Annotated[Recipe, arg(name="")]
    data: Annotated[Path | None, arg(metavar="DIR")] = None  # Folder of the photos: sets data.root
    out: Path | None = None  # Folder of the run; default runs/NAME
    resume: bool = False  # Go on with the run that the folder holds
    every: int = 0  # Steps between checkpoints, beside those after epochs and every five minutes
    keep: int = 2  # So many checkpoints are kept
    bad: int = 10  # Batches in a row with a loss that is not finite before the training gives up


@dataclass(frozen=True)
class EvaluateArguments:
    """Score the masks of a model on the data of its recipe."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A trained network: a name of the package, or a .safetensors file."""
    data: Path | None = None
    """A folder of other photos with masks than those of the recipe; only classes that the model
    knows are scored; pixels of others are what the recipe says (left out, or background)."""
    kind: Literal["voc", "coco", "folder"] | None = None
    """How --data is laid out; told by what lies there if not given."""
    split: str = "val"  # Which images: train, val, or another list of the data, such as test
    table: Literal[3] | None = None
    """The four rows of Table III, multi-scale by flip, instead of one protocol."""
    json: Path | None = None
    """Also write the score to this file; with --table an object of scores by row."""
    save: Path | None = None  # Also write the masks to this folder, as index PNGs in VOC's palette
    tar: Path | None = None  # Also pack the masks of --save for the server of PASCAL VOC
    confusion: Path | None = None  # Also draw the confusion matrix to this PNG
    processes: int = 1  # Processes that compute the CRF
    limit: int | None = None  # Only the first so many images
    size: int | None = None
    """Longest side in px at which the network works; default: its protocol's, or two crops."""
    image_labels: Switch | None = None  # The true image labels replace the class filter
    markdown: bool = False  # Print the table as Markdown
    protocol: Annotated[ProtocolFlags, arg(name="")] = ProtocolFlags()


@dataclass(frozen=True)
class SegmentArguments:
    """Segment photos: overlay with legend, class index mask and JSON for each."""

    photos: Annotated[Positional[tuple[Path, ...]], arg(metavar="PHOTO...")]
    """Photos, or folders of photos."""
    model: str = "lite-voc"
    """A trained network: a name of the package, or a .safetensors file."""
    out: Path = Path("segmented")  # Folder for the results
    size: int | None = None
    """Longest side in px at which the network works; default: its protocol's, or two crops."""
    labels: Path | None = None  # CSV of known image labels, 'file, class; class' a line
    page: bool = False  # Also write index.html, one page of all the photos with their masks
    protocol: Annotated[ProtocolFlags, arg(name="")] = ProtocolFlags()


@dataclass(frozen=True)
class ParamsArguments:
    """Trained parameters and FLOPs of every row of Tables I and II."""

    table: Literal[1, 2] | None = None  # One table; default both
    json: bool = False  # JSON instead of a table


@dataclass(frozen=True)
class ImportArguments:
    """Turn a weight file of the authors into a safetensors with recipe and provenance."""

    file: Annotated[Positional[Path], arg(metavar="FILE.pth")]
    """The ImageNet file, or a trained WS-FCN or baseline."""
    out: Annotated[Positional[Path], arg(metavar="OUT.safetensors")]  # The file to write
    recipe: str | None = None
    """Recipe of the network; default: told by the names and the number of classes in the file."""


@dataclass(frozen=True)
class ExportArguments:
    """Write a network in the authors' layout."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]  # A .safetensors file of a paper recipe
    out: Annotated[Positional[Path], arg(metavar="OUT.pth")]  # The file to write


WEIGHTS: dict[str, type[ImportArguments | ExportArguments]] = {
    "import": ImportArguments,
    "export": ExportArguments,
}


def parse(kind: type[T], command: str, argv: list[str], default: T | None = None) -> T:
    """Parse flags; tyro's boxed complaint becomes one SettingsError line."""
    caught = io.StringIO()
    extra: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(caught):
            return tyro.cli(kind, prog=f"wsfcn {command}", args=argv, **extra)
    except SystemExit as leaving:
        if leaving.code:
            raise SettingsError(_unboxed(caught.getvalue(), command)) from None
        raise


# What tyro says -> what we say.
_REWORDED = (
    (r"Error parsing (?:recipe\.)?([\w.-]+): ([\w.]+): ", r"\1.\2: "),
    (
        r"Error parsing (\S+): no type matching \{None\}\|(.+?) could .*? from \[(.*?)\].*",
        r"\1: needs \2, got \3",
    ),
    (r"Error parsing (\S+): .*arguments: \[(.*)\]", r"\1: cannot read \2"),
)


def _unboxed(box: str, command: str) -> str:
    """The first message of tyro's box, and the nearest flag that it suggests."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│ ") for line in plain.splitlines() if not re.search("[╭╰]", line)]
    lines = ["\0" if re.fullmatch("[─-]{5,}", line) else line for line in lines if line]
    if "╭" not in plain and lines[1:2] == ["\0"]:  # without UTF-8 the title has a rule below it
        lines = lines[2:]
    first, _, rest = " ".join(lines).partition("\0")
    for theirs, ours in _REWORDED:
        first = re.sub(theirs, ours, first.strip())
    flag = r"--[\w.-]*\w"
    hints = re.findall(flag, rest.partition("Perhaps you meant")[2].partition("--help")[0])
    if hints and (asked := re.search(flag, first)):  # tyro's first may be a longer name
        [near] = difflib.get_close_matches(asked[0], hints, n=1, cutoff=0)
        return f"{first}; did you mean {near}?"
    return f"{first}; see wsfcn {command} --help".removeprefix("; ")
