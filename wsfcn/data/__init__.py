"""What the network sees: samples, the sets they come from, augmentation and image files."""

from ..recipes import Data
from .sample import Dataset
from .scenes import SceneSet


def build(data: Data) -> tuple[Dataset, Dataset]:
    """The training and the validation set that the settings describe."""
    if data.kind != "scenes":
        raise ValueError(
            f"data.kind: {data.kind!r} is not read yet; hand the sets over: "
            "train(recipe, folder, datasets=(train, val))"
        )
    return (
        SceneSet(data.scenes, data.train, data.seed, "train"),
        SceneSet(data.scenes, data.val, data.seed, "val"),
    )
