import base64
import io

import numpy as np
from PIL import Image

from wsfcn.data.sample import VOC_CLASSES, Sample
from wsfcn.data.scenes import SceneSet
from wsfcn.recipes import Scenes
from wsfcn.show.colours import class_colours
from wsfcn.show.sheet import contact_sheet


class Listed:
    """A data set of given samples."""

    classes = VOC_CLASSES

    def __init__(self, *samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=80)
    return np.asarray(Image.open(file).convert("RGB"))


def test_sheet_of_scenes():
    figure = contact_sheet(SceneSet(Scenes(size=64), 20, 0, "val"), 5, columns=3, title="Scenes")
    assert len(figure.axes) == 10
    names = {t.get_text() for axes in figure.axes if axes.legend_ for t in axes.legend_.texts}
    assert names and names <= set(VOC_CLASSES)
    assert all(name in figure.alt for name in names)
    assert figure.texts[0].get_text() == "Scenes"
    assert pixels(figure).std() > 20


def test_the_mask_is_seen_in_the_colours_of_its_classes():
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 8
    labels = np.zeros(20, np.float32)
    labels[7] = 1
    sample = Sample("a", np.full((64, 64, 3), 128, np.uint8), labels, mask)
    drawn = pixels(contact_sheet(Listed(sample), 1, alpha=1.0))
    near = (np.abs(drawn.astype(int) - class_colours(9)[8]).max(-1) < 5).sum()
    assert near > 0.2 * 140 * 140 * 0.9  # a quarter of the panel, in px at 80 dpi


def test_samples_without_mask_and_of_any_shape():
    labels = np.zeros(20, np.float32)
    labels[[0, 5, 19]] = 1
    wide = Sample("b", np.zeros((40, 90, 3), np.uint8), labels, None)
    large = Sample("c", np.zeros((500, 300, 3), np.uint8), labels, np.zeros((500, 300), np.uint8))
    figure = contact_sheet(Listed(wide, large), 12)
    assert len(figure.axes) == 4  # no more than there are
    assert pixels(figure).ndim == 3


def test_figures_are_not_kept_by_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    contact_sheet(SceneSet(Scenes(size=64), 2, 0, "val"), 2)
    assert plt.get_fignums() == before


def test_a_notebook_gets_the_picture_and_its_alternative_text():
    figure = contact_sheet(SceneSet(Scenes(size=64), 2, 0, "val"), 2)
    bundle, metadata = figure._repr_mimebundle_()
    shown = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert shown.width == 2 * 1.75 * 150
    assert metadata["image/png"]["alt"] == figure.alt
    assert figure.alt.startswith("2 images with their masks")
