"""The parameters of each notebook: names, ranges, and a default for every profile.

A notebook's `parameters` cell is written from its schema here (`python -m wsfcn.study.pairs
sync`), and what a run is given is checked against the schema before a kernel starts. A new
notebook is a class and a line in PARAMETERS.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ..settings import Settings, SettingsError

ProfileName = Literal["smoke", "laptop", "paper"]


def _absolute(text: str, kind: str = "file") -> str:
    """Notebooks run in their output folder: a path that the caller gave must not depend on it."""
    path = Path(text).expanduser()
    if text and not (path.is_file() if kind == "file" else path.is_dir()):
        raise PydanticCustomError("not_there", f"no such {kind}")
    return str(path.resolve()) if text else ""


def _absolute_or_name(text: str) -> str:
    return _absolute(text) if "/" in text or text.endswith(".safetensors") else text


FilePath = Annotated[str, AfterValidator(_absolute)]
ModelName = Annotated[str, AfterValidator(_absolute_or_name)]
FolderPath = Annotated[str, AfterValidator(partial(_absolute, kind="folder"))]


class CellParameters(Settings):
    """Parameters of a notebook, read from values or from the texts of a command line.

    Texts count as what the field's type makes of them: "3", "none", "0.1,0.2".
    """

    @model_validator(mode="before")
    @classmethod
    def _read_texts(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: _read(value, cls.model_fields[name].annotation)
            if isinstance(value, str) and name in cls.model_fields
            else value
            for name, value in values.items()
        }


class NotebookParameters(CellParameters):
    """What every notebook of the course takes. Field defaults are those of the smoke profile.

    PROFILES holds what the other profiles change; a profile that is not in it is not offered.

    >>> Training.defaults("laptop").change({"epochs": "4"}).epochs
    4
    """

    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {}}

    profile: ProfileName = Field("smoke", description="how much work: smoke, laptop or paper")
    seed: int = Field(0, ge=0, description="seed of everything random")

    @classmethod
    def offered(cls) -> list[str]:
        """The profiles of this notebook, smallest first."""
        return [p for p in get_args(ProfileName) if p == "smoke" or p in cls.PROFILES]

    @classmethod
    def defaults(cls, profile: str = "smoke") -> Self:
        """The parameters of a profile. Raises SettingsError where it is not offered."""
        if profile not in cls.offered():
            offered = ", ".join(cls.offered())
            raise SettingsError(f"profile: {profile!r} is not offered here; offered: {offered}")
        own = {} if profile == "smoke" else cls.PROFILES[profile]
        return cls(**{"profile": profile, **own})


def folders_in(schema: type[CellParameters], values: dict[str, Any]) -> list[str]:
    """The folders that parameters name; what lies in them counts as the notebook's input."""
    [check] = FolderPath.__metadata__  # type: ignore[attr-defined]
    fields = schema.model_fields.items()
    return [values[name] for name, field in fields if check in field.metadata and values[name]]


def _read(text: str, annotation: Any) -> Any:
    """A text from a command line as what a field of that type takes; pydantic does the rest."""
    options = get_args(annotation) or (annotation,)
    if type(None) in options and text.strip().lower() in ("none", "null", ""):
        return None
    kinds = {getattr(option, "__origin__", option) for option in (annotation, *options)}
    if not kinds & {list, tuple}:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [part.strip() for part in text.split(",") if part.strip()]


class Cams(NotebookParameters):
    """01_cams: why a class activation map finds half an object."""

    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {"scenes": 120, "shown": 6}}

    photo: FilePath = Field("", description="a photo of yours; empty: those of scikit-image")
    model: ModelName = Field("lite-scenes", description="trained network: a name or .safetensors")
    photo_model: ModelName = Field("lite-voc", description="network for photos: the same")
    scenes: int = Field(8, ge=1, le=2000, description="scenes that are scored, at most all there")
    shown: int = Field(3, ge=1, le=12, description="scenes that are drawn")


class Context(NotebookParameters):
    """02_fca_context: what the strips of FCA see, cost and change."""

    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {"scenes": 120, "shown": 3, "resamples": 1000}
    }

    photo: FilePath = Field("", description="a photo of yours; empty: one of scikit-image")
    model: ModelName = Field("lite-scenes", description="network with FCA: a name or a file")
    scenes: int = Field(8, ge=2, le=300, description="scenes that are scored, of each kind")
    shown: int = Field(2, ge=1, le=8, description="scenes that are drawn")
    resamples: int = Field(200, ge=20, description="draws of the bootstrap")


class Flow(NotebookParameters):
    """03_sf2_semantic_flow: what SF2's flow and its two streams are worth."""

    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {"scenes": 200, "shown": 3, "resamples": 2000}
    }

    model: ModelName = Field("lite-scenes", description="network with SF2: a name or a file")
    scenes: int = Field(20, ge=20, le=300, description="scenes that are scored")
    shown: int = Field(2, ge=1, le=4, description="scenes that are drawn")
    resamples: int = Field(500, ge=20, description="draws of the bootstrap")


class Training(NotebookParameters):
    """05_training: the two phases, the losses, the masks over the epochs.

    None leaves a value to the recipe of the profile.
    """

    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {"shown": 6, "scored": 32}}

    epochs: int | None = Field(
        None, ge=1, le=1000, description="passes over the data; None: recipe's"
    )
    warmup_epochs: int | None = Field(None, ge=0, le=1000, description="first epochs, no mask loss")
    train: int | None = Field(None, ge=1, description="training scenes; None: recipe's")
    val: int | None = Field(None, ge=1, description="validation scenes; None: recipe's")
    shown: int = Field(3, ge=1, le=6, description="scenes of the filmstrip")
    scored: int = Field(4, ge=1, description="scenes that every protocol is tried on")

    @model_validator(mode="after")
    def _ordered(self) -> Training:
        if self.epochs is not None and (self.warmup_epochs or 0) > self.epochs:
            raise ValueError(f"warmup_epochs: must be at most epochs ({self.epochs})")
        return self


class Ablations(NotebookParameters):
    """06_ablations: Tables I to III beside the paper, with their spread."""

    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {"scored": 60, "scaled": 24, "shown": 3}
    }

    data: FolderPath = Field("", description="photos with masks (docs/data.md); empty: scenes")
    networks: list[ModelName] = Field([], description="networks, baseline first; empty: shipped")
    records: FilePath = Field("", description="scores over seeds; empty: the repository's")
    scored: int = Field(4, ge=2, description="images that every network is scored on")
    scaled: int = Field(2, ge=2, description="images that are looked at in four sizes")
    shown: int = Field(2, ge=1, le=6, description="images that are drawn")


class Refinement(NotebookParameters):
    """04_pamr_refinement: PAMR, its knobs, the dense CRF, and pseudo labels in slow motion."""

    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {"laptop": {"scenes": 64}}

    model: ModelName = Field("lite-scenes", description="trained network: a name or a file")
    photo_model: ModelName = Field("lite-voc", description="network for photos: the same")
    photo: FilePath = Field("", description="a photo of yours; empty: scikit-image's cat")
    scene: int = Field(0, ge=0, le=299, description="validation scene that is taken apart")
    scenes: int = Field(8, ge=2, le=300, description="validation scenes that are scored")


class Failures(NotebookParameters):
    """07_failure_cases: what goes wrong, why, and what happens when the cause is removed."""

    PROFILES: ClassVar[dict[str, dict[str, Any]]] = {
        "laptop": {"mined": 120, "paired": 60, "shown": 2}
    }

    model: ModelName = Field("", description="network that is looked at; empty: a shipped one")
    photos: FolderPath = Field("", description="photos with masks (docs/data.md); empty: scenes")
    split: str = Field("val", description="which list of the photos")
    mined: int = Field(20, ge=4, le=2000, description="images that are searched for failures")
    paired: int = Field(6, ge=4, le=300, description="scenes of each experiment")
    shown: int = Field(1, ge=1, le=6, description="images that are drawn of a cause")


PARAMETERS: dict[str, type[NotebookParameters]] = {
    "01_cams": Cams,
    "02_fca_context": Context,
    "03_sf2_semantic_flow": Flow,
    "04_pamr_refinement": Refinement,
    "05_training": Training,
    "06_ablations": Ablations,
    "07_failure_cases": Failures,
}


def parameters_cell(schema: type[NotebookParameters]) -> str:
    """The source of the parameters cell: the smoke defaults, one plain assignment a line."""
    lines = [f"# schema: {schema.__module__}.{schema.__qualname__}"]
    values = schema.defaults().model_dump(mode="json")
    for name, value in values.items():
        text = json.dumps(value) if isinstance(value, str) else repr(value)
        description = schema.model_fields[name].description
        lines.append(f"{name} = {text}" + (f"  # {description}" if description else ""))
    return "\n".join(lines)
