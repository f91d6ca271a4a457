# %% [markdown]
# # 4 · PAMR: how the colours of an image repair a mask
#
# The masks of a segmentation network are blurred: it works on a grid that is coarser than the
# image. But the image knows where things end, to the pixel. *PAMR*, pixel-adaptive mask
# refinement, asks it, and the repaired masks become the network's next lesson. Nothing in it is
# learned. It fits on a page, and this notebook takes it apart.
#
# **Afterwards you can**
#
# * say whom a pixel listens to, and why the contrast of a photo does not matter to it;
# * predict what more steps, wider rings and another temperature do to a mask;
# * compare PAMR with the dense CRF in quality and time, and say which of the two *forgets*;
# * follow a mask value until it is a label, "not sure", or shut out by the batch gate.
#
# **Before**: `01_cams` shows what masks from image labels lack. `05_training` uses what you meet
# here to train.
#
# | profile | what it is for | time on 2 CPU cores |
# | --- | --- | --- |
# | `smoke` | testing: statistics over 8 scenes | 20 s |
# | `laptop` | reading: statistics over 64 scenes | 40 s |

# %% tags=["parameters"]
# schema: wsfcn.study.parameters.Refinement
profile = "smoke"  # how much work: smoke, laptop or paper
seed = 0  # seed of everything random
model = "lite-scenes"  # trained network: a name or a file
photo_model = "lite-voc"  # network for photos: the same
photo = ""  # a photo of yours; empty: scikit-image's cat
scene = 0  # validation scene that is taken apart
scenes = 8  # validation scenes that are scored

# %% [markdown]
# The network comes with the package: WS-FCN, trained on drawn scenes (emoji on photographs) from
# their **image labels** alone, the list of classes in each. The exact masks of the scenes are
# known, since the scenes were painted; here they only measure.

# %%
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

import wsfcn
from wsfcn import data
from wsfcn.data.transforms import to_tensor
from wsfcn.model.layers import resize
from wsfcn.show import pamr as draw
from wsfcn.study.exercises import judge
from wsfcn.weak import PAMR, gate_open, pseudo_labels, refine

network = wsfcn.load(model)
val = data.build(network.recipe.data)[1]
names = ("background", *val.classes)

samples = [val[i] for i in (scene, *range(scenes))]  # first the scene that we take apart
images = torch.stack([to_tensor(sample.image) for sample in samples])
labels = torch.from_numpy(np.stack([sample.labels for sample in samples]))
truth = np.stack([sample.mask for sample in samples])
with torch.inference_mode():
    outputs = [network(network.normalise(some)) for some in images.split(16)]

# %% [markdown]
# ## 4.1 What is wrong with the mask?
#
# **Question.** For each pixel the network gives every class a **share** between 0 and 1; with the
# background they sum to 1. All shares of a class together are its **mask**. Where do masks go
# wrong? (Classes that are not in the image labels get the share 0 in this notebook, as in
# training.)

# %%
shares = torch.cat([output.probabilities for output in outputs])
in_scene = torch.cat([torch.ones(len(labels), 1), labels], 1)[..., None, None]
small = shares * in_scene  # at 1/4 of the image's size
masks = resize(small, images.shape[-2:])

picture, exact, mask = np.ascontiguousarray(samples[0].image), truth[0], masks[:1]
kinds = [int(c) + 1 for c in np.flatnonzero(samples[0].labels)]
main = kinds[-1]  # the class that is drawn


def label_map(shares):
    """The class with the largest share at each pixel: (K+1, h, w) -> (H, W) uint8."""
    return resize(shares[None], exact.shape)[0].argmax(0).numpy().astype(np.uint8)


row = {"scene": picture, f"mask of the {names[main]}": mask[0, main].numpy()}
row |= {"largest share": label_map(mask[0]), "exact mask": exact}
draw.grid(picture, {"": row}, exact == main)

# %% [markdown]
# **What to notice.** In the second picture yellow means a share near 1, dark blue a share near 0;
# the white line is the object's true outline. The mask comes from a coarse map, so it fades out
# softly. Where does it miss ends, where does it span gaps, although the scene shows every edge to
# the pixel? (White in the exact mask: border pixels, which are not counted.)

# %% [markdown]
# ## 4.2 Whom does a pixel ask?
#
# PAMR replaces the shares of a pixel by a weighted mean over **48 neighbours**: the 8 pixels
# around it, and the 8 at 2, 4, 8, 12 and 24 pixels' distance. These distances are its
# **dilations**. Neighbours that look alike count more. For pixel $i$ with colour $I_{c,i}$ ($c$:
# red, green, blue), the weight or **affinity** of neighbour $j$ is a softmax over the 48:
#
# $$ \alpha_{i,j} = \frac{e^{-d_{i,j}}}{\sum_k e^{-d_{i,k}}} \qquad
#    d_{i,j} = \frac{1}{3} \sum_{c} \frac{|I_{c,i} - I_{c,j}|}{\tau \, \sigma_{c,i}}
#    \qquad \tau = 0.1 $$
#
# $\sigma_{c,i}$ is the standard deviation of the colour over the neighbours and the pixel itself.
# $\tau$ is a **temperature**: the lower, the pickier the pixel. A neighbour that differs by one
# standard deviation in every colour counts $e^{10}$, some 22,000 times, less than a twin.


# %%
def shifted(maps, offsets):
    """(C, H, W) -> (n, C, H, W): what each pixel sees at each of n offsets (rows, columns)."""
    reach, (height, width) = max(map(max, offsets)), maps.shape[-2:]
    padded = F.pad(maps[None], (reach,) * 4, mode="replicate")[0]  # beyond the border: its pixel
    tops = [(reach + y, reach + x) for y, x in offsets]
    return torch.stack([padded[:, y : y + height, x : x + width] for y, x in tops])


def affinities(image, offsets, temperature=0.1, sigma=None):
    """Image (3, H, W) -> weights (n, H, W); sigma: instead of the local standard deviation."""
    near = shifted(image, offsets)
    if sigma is None:  # each ring of 8 counts the pixel itself once
        own = image.expand(len(offsets) // 8, -1, -1, -1)
        sigma = torch.cat([near, own]).std(0)
    distance = (near - image).abs() / (1e-8 + temperature * sigma)
    return (-distance.mean(1)).softmax(0)


pamr = PAMR()  # the package's, with the released numbers: 10 steps, 48 neighbours
weights = affinities(images[0], pamr.offsets)
torch.testing.assert_close(weights[None], pamr.affinities(images[:1]))  # the same

# %% [markdown]
# That is all of the formula. Now ask four pixels: one **inside** an object, one near its **edge**,
# one in the **texture** of the ground, and the **worst** of all object pixels, the one that gives
# the largest weight to neighbours of other classes.

# %%
from scipy import ndimage

exact_labels = torch.from_numpy(exact)[None].float()
others = shifted(exact_labels, pamr.offsets)[:, 0]
leak = (weights * ((others != exact_labels) & (others != 255))).sum(0).numpy()
depth = ndimage.distance_transform_edt(exact == main)  # px to the nearest other pixel
far = ndimage.distance_transform_edt(exact == 0) > 8
grey = images[0].mean(0).numpy()


def largest(values):
    """(row, column) of the largest value, so far from the border that all neighbours exist."""
    values = np.pad(values[26:-26, 26:-26], 26, constant_values=-1)
    return tuple(int(n) for n in np.unravel_index(np.argmax(values), values.shape))


pixels = {
    "inside": largest(depth),
    "edge": largest(((depth > 3) & (depth < 6)) * grey),
    "texture": largest(far * ndimage.generic_filter(grey, np.std, 7)),
    "worst": largest((depth > 1) * leak),
}

# %%
of_pixels = [weights[:, y, x].numpy() for y, x in pixels.values()]
draw.neighbours(picture, exact, pixels, pamr.offsets, of_pixels)

# %% [markdown]
# **What to notice.** Each disk is a neighbour, its area the weight. Blue: of the same class as the
# pixel. Orange: of another. Grey: border pixels, which are not counted.
#
# * *Inside* and at the *edge*, neighbours of the pixel's colour share the weight; all others get
#   next to nothing, however near. **Colour alone decides**, distance does not. This is what will
#   move the mask's border to the edge.
# * In *texture* the weight follows the streaks and spots of the ground.
# * The *worst* pixel has its twins in the ground or in another object. PAMR does not know objects,
#   only colours, and drawn objects share at least the black of their outlines.

# %%
from IPython.display import Markdown

leaks = {
    "object": float(leak[(exact > 0) & (exact < 255)].mean()),
    "ground": float(leak[exact == 0].mean()),
}
Markdown(
    f"On average, a pixel of an object in this scene gives {100 * leaks['object']:.2f} % of its "
    f"weight to other classes, and a pixel of the ground {100 * leaks['ground']:.2f} %."
)

# %% [markdown]
# ## 4.3 What does one step do, and what do twenty?
#
# One step takes the weighted mean at all pixels at once. The next works on its result, with the
# *same* weights. After ten steps a pixel has heard, through others, from places up to $10 \cdot
# 24$ pixels away, along chains of similar colours.


# %%
def one_step(maps, weights, offsets):
    """Masks (C, H, W) -> (C, H, W): at each pixel a weighted mean over its neighbours."""
    return (weights[:, None] * shifted(maps, offsets)).sum(0)


by_hand = mask[0, kinds]
for _ in range(pamr.iterations):
    by_hand = one_step(by_hand, weights, pamr.offsets)
torch.testing.assert_close(by_hand, pamr(images[:1], mask)[0, kinds])  # PAMR, whole

# %% [markdown]
# To judge label maps we take the **mIoU**: for each class, the pixels that map and truth share,
# divided by those that either has (*intersection over union*), averaged over the classes; 100 %
# is perfect. The **boundary IoU** is the same, counted only along the outlines, where the inside
# of a large object cannot hide a sloppy border.

# %%
from wsfcn.metrics import Tally


def rates(label_maps, exact_maps):
    """mIoU, boundary IoU; share of object pixels found, share of found ones on objects: in %."""
    tally = Tally(len(names))
    for found, true in zip(label_maps, exact_maps, strict=True):
        tally.update(found, true)
    c = tally.confusion
    whole = (c.mean_iou, tally.boundary_iou, c.foreground_recall, c.foreground_precision)
    return [100 * rate for rate in whole]


film = [step[0] for step in PAMR(iterations=20).steps(images[:1], mask)]
chosen = (0, 1, 2, 5, 10, 20)
by_step = [rates([label_map(film[n])], [exact])[0] for n in chosen]
rows = {names[c]: {f"step {n}": film[n][c].numpy() for n in chosen} for c in kinds}
rows["label map"] = {f"step {n}": label_map(film[n]) for n in chosen}
notes = {"label map": [f"mIoU {value:.0f} %" for value in by_step]}
draw.grid(picture, rows, notes=notes)

# %%
says = ", ".join(f"{n}: {value:.0f} %" for n, value in zip(chosen, by_step, strict=True))
draw.Film(
    picture,
    {n: (film[n][main].numpy(), label_map(film[n])) for n in (*range(11), 12, 14, 17, 20)},
    f"Film of the mask of the {names[main]} and of the label map over 20 steps of PAMR: the soft "
    f"border moves to edges of colour. mIoU by steps: {says}",
)

# %%
top = int(np.argmax(by_step))
later = "" if top == len(chosen) - 1 else f", and is {by_step[-1]:.0f} % after {chosen[-1]}"
Markdown(
    "**What to notice.** First some steps, then a film of them (the mask and the label map). This "
    f"scene's mIoU goes from {by_step[0]:.0f} % to {by_step[top]:.0f} % after {chosen[top]} steps, "
    f"the best of those shown{later}."
)

# %% [markdown]
# * Shares spread over what has the object's colours, and stop where colours change. Gaps between
#   parts come free, missing ends are filled. The mask shows it after the first steps; the label
#   map, in which only the largest share counts, may follow later.
# * Steps also *drain*. A mean is never above the largest value that it is the mean of, so peaks
#   get lower and valleys higher. Parts with a colour of their own, and the black outlines that all
#   objects have in common, lose their share to the many.
# * PAMR spreads doubt, too. What the network gives half to each of two classes stays so.

# %% [markdown]
# ### Each class on its own
# A step is a weighted sum, so PAMR is **linear**, and it treats every class alone. Three
# consequences, checked as equalities:
#
# 1. scaling and adding masks can be done before or after PAMR;
# 2. classes that are not in the image need no work: their mask is 0 and stays 0;
# 3. weights sum to 1, so shares that sum to 1 still do afterwards.

# %%
torch.manual_seed(seed)
one, equal = images[:1], torch.testing.assert_close
a, b = torch.rand(2, 1, 1, *exact.shape)
equal(pamr(one, 2 * a + b), 2 * pamr(one, a) + pamr(one, b))  # 1
equal(pamr(one, mask), refine(pamr, one, mask, labels[:1]))  # 2: refine skips absent classes
total = pamr(one, resize(shares[:1], exact.shape)).sum(1)
equal(total, torch.ones_like(total))  # 3

# %% [markdown]
# ## 4.4 What do the knobs do?
#
# PAMR has four: the number of steps, the dilations, the temperature $\tau$, and the choice to
# divide by the *local* $\sigma$. A class that takes them all:


# %%
class Tuned(PAMR):
    """PAMR with another temperature, or one standard deviation for the whole image."""

    def __init__(self, temperature=0.1, sigma=None, **own):
        super().__init__(**own)
        self.knobs = (temperature, sigma)

    def affinities(self, image):
        """As PAMR's, (B, n, H, W)."""
        return torch.stack([affinities(one, self.offsets, *self.knobs) for one in image])


def compare(rows):
    """The drawn class's mask by several kinds of PAMR: row -> name -> (PAMR, image)."""
    found = {
        r: {k: refine(f, image, mask, labels[:1])[0] for k, (f, image) in of.items()}
        for r, of in rows.items()
    }
    heat = {r: {k: m[main].numpy() for k, m in of.items()} for r, of in found.items()}
    notes = [[rates([label_map(m)], [exact])[0] for m in of.values()] for of in found.values()]
    notes = [[f"mIoU {value:.0f} %" for value in row] for row in notes]
    return draw.grid(picture, heat, exact == main, dict(zip(rows, notes, strict=True)))


# %% [markdown]
# **Question.** Why divide by the local spread $\sigma$? Fade the scene to a third of its contrast
# and try both.

# %%
faded, fixed = one / 3 + 0.5, Tuned(sigma=float(one.std()))
equal(pamr(faded, mask), pamr(one, mask), atol=1e-3, rtol=0)  # the same masks
kinds = {
    "local spread": (pamr, one),
    "local spread, faded scene": (pamr, faded),
    "one spread for all": (fixed, one),
    "one spread, faded scene": (fixed, faded),
}
compare({names[main]: kinds})

# %% [markdown]
# **What to notice.** Fading divides colour differences and $\sigma$ by the same number, so with the
# local $\sigma$ nothing changes: what counts as *alike* is measured in units of what is usual
# around here. With one $\sigma$ for all, the faded scene has hardly an edge that is worth a stop:
# the mask bleeds into its surroundings, and pales. A photo has such regions, in shadow or fog, next
# to others full of contrast.

# %%
kinds = {
    "temperature": {f"τ = {t:g}": (Tuned(t), one) for t in (0.02, 0.1, 0.5, 5)},
    "dilations": {
        "1": (PAMR(dilations=(1,)), one),
        "1, 2, 4": (PAMR(dilations=(1, 2, 4)), one),
        "1, 2, 4, 8, 12, 24": (pamr, one),
        "24 alone": (PAMR(dilations=(24,)), one),
    },
}
compare(kinds)

# %% [markdown]
# **What to notice**, always after ten steps.
#
# * *Temperature.* A cold pixel listens to one or two best twins only, so it matters who these
#   happen to be, and the mask turns grainy. A hot one listens to everybody: a mean over 48 places
#   is a blur that knows no edges. $\tau = 0.1$ is cold enough to stop at them.
# * *Dilations.* With the nearest ring alone a share travels ten pixels in ten steps. Wide rings
#   carry it across gaps to the other parts of an object, and also to lookalikes elsewhere. Without
#   near rings (24 alone) a pixel no longer talks to the pixel beside it, and the mask falls apart.
#
# ## 4.5 Does it help on average?
#
# **Question.** One scene proves nothing. What do steps and dilations do over many?
#
# And on which grid? Training refines the *small* masks, at 1/4 of the image along each side,
# which is fast. One may as well enlarge them first. Mind that dilations count pixels of the
# **mask**: on a map of 32 pixels a ring at 24 is three quarters of the scene away. On the maps of
# the paper's training, 81 pixels wide, it is 30 %.

# %%
steps = (0, 1, 2, 5, 10, 20)
grids = {f"small masks, {small.shape[-1]} px": small, f"enlarged, {masks.shape[-1]} px": masks}
rings = {"1": (1,), "1, 2, 4": (1, 2, 4), "1, 2, 4, 8, 12, 24": pamr.dilations}


def along_steps(given, dilations):
    """For each of `steps` the rates over all scenes but the first, refined from given masks."""
    walked = []
    for image, own, label in zip(images[1:], given[1:], labels[1:], strict=True):
        known = torch.tensor([0, *(label.nonzero()[:, 0] + 1)])  # absent classes need no work
        walk = PAMR(max(steps), dilations).steps(image[None], own[None, known])
        best = [resize(m, exact.shape)[0].argmax(0) for n, m in enumerate(walk) if n in steps]
        walked.append([known[place].numpy() for place in best])
    return [rates(maps, truth[1:])[:3] for maps in zip(*walked, strict=True)]


# %%
columns = ["masks", "dilations", "steps", "mIoU, %", "boundary IoU, %", "objects found, %"]
table = pd.DataFrame(
    (
        (kind, ring, step, *row)
        for kind, given in grids.items()
        for ring, dilations in rings.items()
        for step, row in zip(steps, along_steps(given, dilations), strict=True)
    ),
    columns=columns,
)

# %%
import seaborn as sns

from wsfcn.show.figures import ShownFigure
from wsfcn.show.panels import BLUE, GREY, ORANGE

best = table.loc[table.groupby("masks", sort=False)["mIoU, %"].idxmax()]
tops = [f"{b.iloc[3]:.1f} % with {b['dilations']} after {b['steps']}" for _, b in best.iterrows()]
figure = ShownFigure(10.5, 5.8, f"mIoU and objects found by steps; best: {'; '.join(tops)} steps")
style = {"style": "dilations", "markers": True, "dashes": False, "palette": [GREY, ORANGE, BLUE]}
axes = figure.subplots(2, 2, sharex=True, sharey="row")
for measure, pair in zip((columns[3], columns[5]), axes, strict=True):
    for axis, (kind, own) in zip(pair, table.groupby("masks", sort=False), strict=True):
        sns.lineplot(own, x="steps", y=measure, hue="dilations", ax=axis, legend=False, **style)
        axis.set(title=kind if measure == columns[3] else "", xticks=steps)
        axis.grid(alpha=0.25)
axes[0, 1].legend(axes[0, 1].lines, rings, title="dilations", ncols=2)
figure

# %%
released = table[(table["steps"] == 10) & (table["dilations"] == [*rings][-1])]
raw, (at_small, at_full) = float(table["mIoU, %"][0]), released["mIoU, %"]
Markdown(
    f"**What to notice.** Unrefined masks have {raw:.1f} % mIoU. With the released numbers, 10 "
    f"steps and all six rings, PAMR makes that {at_full:.1f} % from enlarged masks and "
    f"{at_small:.1f} % from small ones. The best in the plots: {tops[0]} (small), {tops[1]} "
    "(enlarged). The lower plots show the price: on a small map the wide rings reach across the "
    "scene, objects can *drain* into their lookalikes, and then fewer of their pixels are found."
)

# %% [markdown]
# More is not always better. PAMR has no memory of where it started; given enough steps, every mask
# becomes flat.

# %% [markdown]
# ## 4.6 PAMR or a dense CRF?
#
# The classic tool for the same job is the **dense CRF** (conditional random field). There *every*
# pixel hears from *every other*, the more the nearer and the more alike in colour they are. And at
# each of its ten rounds it goes back to the network's mask: what the neighbours say is weighed
# against what the pixel had to say at first. That is the memory that PAMR lacks. It costs time:
# a trick (filtering on a coarse grid in space and colour) makes it possible at all.
#
# WS-FCN's CRF also replaces the background's mask by $(1 - \max_c m_c)^5$, $m_c$ being the masks
# of the classes. That alone changes label maps, so it gets a row of its own.

# %%
import time
from functools import partial

from wsfcn.weak.crf import chosen_code, dense_crf


def own_background(m):
    """Masks (K+1, H, W) with the background that WS-FCN's CRF starts from."""
    return torch.cat([(1 - m[1:].amax(0, keepdim=True)) ** 5, m[1:]])


def crf(code):
    """All scenes by the dense CRF, one after the other."""
    pairs = zip(pictures, masks[1:], strict=True)
    return [torch.from_numpy(dense_crf(image, m.numpy(), code=code)) for image, m in pairs]


def by_pamr(given):
    """All scenes by PAMR, in batches as in training."""
    batches = zip(*(tensor[1:].split(16) for tensor in (images, given, labels)), strict=True)
    return torch.cat([refine(pamr, *batch) for batch in batches])


# %%
pictures = [np.ascontiguousarray(sample.image) for sample in samples[1:]]
codes = ("torch",) if chosen_code() == "torch" else ("torch", "pydensecrf")
methods = {"unrefined": lambda: masks[1:]}
methods |= {f"PAMR ({kind})": partial(by_pamr, given) for kind, given in grids.items()}
methods |= {"the CRF background alone": lambda: [own_background(m) for m in masks[1:]]}
methods |= {f"dense CRF ({code})": partial(crf, code) for code in codes}

# %%
rows, found = {}, {}
by_pamr(small)  # the first call of anything is slow
for method, work in methods.items():
    started = time.process_time()
    results = work()
    spent = 1000 * (time.process_time() - started) / scenes
    found[method] = [label_map(m) for m in results]
    rows[method] = [*rates(found[method], truth[1:]), spent]
columns = ["mIoU, %", "boundary IoU, %", "objects found, %", "found on objects, %", "ms an image"]
versus = pd.DataFrame(rows, index=columns).T.round(1)
versus

# %% [markdown]
# *Objects found*: the share of the objects' pixels that some class gets. *Found on objects*: the
# share of the pixels with a class that lie on an object. Time is processor time for masks of 128 x
# 128 pixels. One scale, no flip, image labels given, largest share wins. Two scenes where the two
# differ most, one each way:

# %%
from wsfcn.show.cams import mask_grid

full, last = [*grids][1], [*methods][-1]
shown = {k: found[k] for k in ("unrefined", f"PAMR ({full})", last)}
alone = {
    k: [rates([m], [t])[0] / 100 for m, t in zip(v, truth[1:], strict=True)]
    for k, v in shown.items()
}
order = np.argsort(np.subtract(alone[last], alone[f"PAMR ({full})"]))
picked = [order[0], order[-1]]
mask_grid(
    [samples[1 + i] for i in picked],
    {k: [v[i] for i in picked] for k, v in shown.items()},
    {k: [v[i] for i in picked] for k, v in alone.items()},
    val.classes,
)

# %%
gain = (versus - versus.loc["unrefined"]).round(1)
iou, outline, ms = columns[0], columns[1], columns[4]
ours, theirs = gain.loc[f"PAMR ({full})"], gain.loc[last]
Markdown(
    f"**What to notice.** mIoU: PAMR on enlarged masks {ours[iou]:+.1f} points, the CRF "
    f"{theirs[iou]:+.1f}, of which its background rule alone makes "
    f"{gain.loc['the CRF background alone', iou]:+.1f}. Boundary IoU: {ours[outline]:+.1f} and "
    f"{theirs[outline]:+.1f}. The CRF can return to the first mask, so it may keep what PAMR "
    "drains: legs, ears, and the black outline around everything that is drawn.\n\n"
    f"Time for an image: {ours[ms]:.0f} ms and {theirs[ms]:.0f} ms (compiled for this one purpose "
    f"where the row says pydensecrf); but training refines small masks, {versus[ms].iloc[1]:.0f} "
    "ms. PAMR is a handful of tensor operations on a whole batch, wherever the network runs. That "
    "makes it fit for *every step of training*; a CRF is a last touch *afterwards*."
)

# %% [markdown]
# ## 4.7 From masks to labels, in slow motion
#
# In training, the refined masks become **pseudo labels**: label maps to learn from. Four rules:
#
# 1. masks of classes that are not in the image labels are set to 0 (we did);
# 2. a class **claims** the pixels where its mask is above a threshold: a factor (0.7 for the
#    background, 0.6 for a class) times its own largest value in this image, but at least 0.2;
# 3. a pixel that exactly one class claims gets its label; one that *nobody* or *several* claim
#    gets 255, "not sure", and teaches nothing;
# 4. the **batch gate**: an image may teach only if all its classes, and the background, got at
#    least one pixel.
#
# Here are rules 2 and 3 along one row of pixels.

# %%
weak = network.recipe.weak
refined = refine(PAMR(weak.pamr_iterations, weak.pamr_dilations), images, small, labels)
factors = torch.full((len(names),), weak.foreground_factor)
factors[0] = weak.background_factor


def thresholds(m, factors):
    """(n, K+1): what a mask has to exceed, from masks (n, K+1, H, W)."""
    return (factors * m.amax((2, 3))).clamp(min=weak.floor)


def labels_of(m, factor=weak.foreground_factor):
    """The package's pseudo labels (n, H, W) of masks of any size."""
    f = {"background_factor": weak.background_factor, "foreground_factor": factor}
    return pseudo_labels(m, labels, exact.shape, floor=weak.floor, **f)


# %%
pseudo = labels_of(refined)[0].numpy()
whole = resize(refined[:1], exact.shape)
limits = thresholds(whole, factors)[0]
row = int(np.argmax([len(np.unique(line)) + (line == 255).mean() for line in pseudo]))
curves = {
    names[c]: (c, whole[0, c, row].numpy(), float(limits[c]))
    for c in (0, *(np.flatnonzero(samples[0].labels) + 1))
}
draw.along_row(picture, row, curves, pseudo)

# %%
steps_of_rules = {
    "after PAMR, largest share": label_map(refined[0]),
    "pseudo label": pseudo,
    "exact mask": exact,
}
draw.grid(picture, {"": {"scene": picture} | steps_of_rules})

# %% [markdown]
# **What to notice.** Where a curve is above its *own* dashed line, the class claims the pixel. The
# strip below has the class's colour where exactly one does, and white elsewhere. At borders, where
# one curve hands over to another, all are below their lines: nobody claims these pixels, and they
# stay white. So a loss on pseudo labels asks little where masks are least to be trusted.
#
# Each class has its *own* line. A class whose mask is faint everywhere, because the network is not
# sure of it, may still claim the brightest part of it.
#
# **Now many scenes.** What becomes of the pixels of *objects*, as the factor of the classes
# changes? (The dotted line is the factor that training uses.)

# %%
strict = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
rings_here = ", ".join(map(str, weak.pamr_dilations))
kinds = {
    "unrefined": small,
    "PAMR, 6 rings": refine(pamr, images, small, labels),
    f"PAMR, rings {rings_here}": refined,
}
objects = (truth[1:] > 0) & (truth[1:] < 255)


def fate(m, factor):
    """Shares of object pixels (right, wrong, several, nobody), and of open gates."""
    large = resize(m, exact.shape)
    own = torch.where(torch.arange(len(names)) > 0, factor, weak.background_factor)
    claims = (large > thresholds(large, own)[..., None, None]).sum(1).numpy()
    made = labels_of(m, factor)
    agreed = (made.numpy() == 255) == (claims != 1)
    assert agreed.mean() > 0.9999  # with the package, but for rounding at the very threshold
    gate = gate_open(made, labels)[1:].float().mean()
    right, claims = (made.numpy() == truth)[1:], claims[1:]
    four = (right, (claims == 1) & ~right, claims > 1, claims == 0)
    return [part[objects].mean() for part in four], float(gate)


# %%
fates = {kind: [fate(m, factor) for factor in strict] for kind, m in kinds.items()}
areas = {kind: np.array([four for four, _ in of]).T for kind, of in fates.items()}
gates = {kind: [gate for _, gate in of] for kind, of in fates.items()}

# %%
parts = {"one class, the right one": BLUE, "one class, a wrong one": ORANGE}
parts |= {"several": "#F0E442", "nobody": "#E4E4E4"}
at = strict.index(weak.foreground_factor)
told = [f"{k} {100 * four[0, at]:.0f} and {100 * four[1, at]:.0f} %" for k, four in areas.items()]
figure = ShownFigure(10.5, 3.8, f"Object pixels labelled right and wrong: {', '.join(told)}")
for axis, (kind, four) in zip(figure.subplots(1, 3, sharey=True), areas.items(), strict=True):
    axis.stackplot(strict, 100 * four, colors=[*parts.values()], labels=[*parts], ec="w")
    axis.plot(strict, 100 * np.array(gates[kind]), "o-", color="0.2", label="open gates")
    axis.axvline(strict[at], color="0.2", ls=":")
    axis.set(title=kind, xlabel="factor of the classes", ylim=(0, 100), xlim=(0.3, 0.9))
figure.axes[0].set_ylabel("pixels of objects, and scenes, %")
figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=5)
figure

# %% [markdown]
# **What to notice.** Strictness turns labels, right (blue) and wrong (orange), into "not sure"
# (grey). *Several* is rare: shares sum to 1, so two classes can both be above their lines only
# where both lines are low. Orange is what does harm: object pixels that some wrong class, most
# often the background, claims all alone. The black line is the share of scenes with an open gate.
#
# When is a gate shut? A class always reaches its own maximum, so a *factor* cannot silence it.
# There are just two ways to lose all pixels: the mask stays below the floor of 0.2 everywhere, or
# others claim the same pixels.


# %%
def lost(m):
    """How many classes of the scenes are without a pixel, by cause."""
    made, large = labels_of(m), resize(m, exact.shape)
    causes = {"below the floor everywhere": 0, "contested by another class": 0}
    for index in range(1, len(samples)):
        for c in np.flatnonzero(samples[index].labels) + 1:
            if not (made[index] == c).any():
                faint = bool(large[index, c].max() <= weak.floor)
                causes[[*causes][0 if faint else 1]] += 1
    return {"gates open": f"{100 * gate_open(made, labels)[1:].float().mean():.0f} %"} | causes


pd.DataFrame({kind: lost(m) for kind, m in kinds.items()}).T

# %% [markdown]
# Draining shows here, too: a small or doubtful class loses its peak, falls below the floor, and
# its scene may not teach. The gate makes sure that at least nobody learns to paint it over.

# %%
right = {kind: f"{100 * four[0, at]:.0f} %" for kind, four in areas.items()}
on = "found on objects, %"
Markdown(
    f"An honest word on this course's own recipe. Its maps have {small.shape[-1]} pixels a side "
    f"instead of the paper's 81, so it was trained with the rings {rings_here} instead of the "
    "paper's six. On the masks of this *trained* network, which has learned edges already, the "
    "labels of object pixels that are right: "
    + ", ".join(f"{share} ({kind})" for kind, share in right.items())
    + ". The ground counts as well: of the pixels that get a class, "
    f"{versus.loc['unrefined', on]:.0f} % lie on objects before PAMR and "
    f"{versus[on].iloc[1]:.0f} % after it (section 4.6, small masks). A number from a paper "
    "belongs to the sizes that it was chosen for."
)

# %% [markdown]
# ## 4.8 And on a photo?
#
# Fur, cloth and shadow are not flat colours. Take a photo, yours or the cat that comes with
# scikit-image, and a network that was trained on photos, again from image labels alone
# (`docs/models.md`). We tell it that the class with the highest score is there, so that it has a
# mask of that class and of the background, and refine these as before: small, as in training;
# enlarged, with the released six rings; and by the dense CRF.

# %%
from pathlib import Path

import skimage
from PIL import Image

from wsfcn.data.images import read_image

on_photos = wsfcn.load(photo_model)
file = photo or Path(skimage.__file__).parent / "data" / "chelsea.png"
shrunk = Image.fromarray(read_image(file))
shrunk.thumbnail((320, 320), Image.Resampling.BICUBIC)
view = np.ascontiguousarray(shrunk)
answer = wsfcn.segment(on_photos, view)
kind = int(answer.scores.argmax())
thing = on_photos.classes[kind]
share = 1 - answer.areas().get("background", 0)
told = wsfcn.segment(on_photos, view, labels=[thing])
both = torch.from_numpy(told.masks[[0, kind + 1]])  # background, and the class

# %%
rings = on_photos.recipe.weak.pamr_dilations
colours = to_tensor(view)[None]
sides = [-(-side // 4) for side in view.shape[:2]]
quarter = F.interpolate(both[None], sides, mode="bilinear", antialias=True)
stages = {
    "network": both,
    "PAMR, small masks": resize(PAMR(10, rings)(colours, quarter), view.shape[:2])[0],
    "PAMR, enlarged": PAMR(10)(colours, both[None])[0],
    "dense CRF": torch.from_numpy(dense_crf(view, both.numpy())),
}
decided = {name: m.argmax(0).numpy().astype(np.uint8) for name, m in stages.items()}

# %%
slope = ndimage.gaussian_gradient_magnitude(np.asarray(shrunk.convert("L"), float), 1)


def sharpness(labels):
    """How steep the grey values are along the outline, as a multiple of the photo's mean."""
    outline = ndimage.morphological_gradient(labels, 3) > 0
    return float(slope[outline].mean() / slope.mean()) if outline.any() and slope.any() else 0.0


edges = {name: sharpness(labels) for name, labels in decided.items()}
areas_here = {name: 100 * float(labels.mean()) for name, labels in decided.items()}
notes = ["", *(f"{areas_here[n]:.0f} %, edges x {edges[n]:.1f}" for n in stages)]
heat = {"photo": view} | {name: m[1].numpy() for name, m in stages.items()}
painted = {"photo": view} | {n: (kind + 1) * labels for n, labels in decided.items()}
draw.grid(view, {f"mask: {thing}": heat, "largest share": painted}, None, {"largest share": notes})

# %%
steepest = max(edges, key=edges.get)
Markdown(
    f"**What to notice.** The network gives *{thing}* a score of {100 * answer.scores[kind]:.0f} % "
    f"and, asked for any class, {100 * share:.1f} % of the photo to some class. There is no exact "
    "mask to score by, but we can ask whether an outline lies where the photo has an edge. "
    "Below each label map: its share of the photo, and how steep its outline is; *edges x 2* means "
    "that grey values change twice as fast across it as in the photo at large. "
    f"The network's outline has {edges['network']:.1f}, the steepest is that of *{steepest}* "
    f"({edges[steepest]:.1f})."
)

# %% [markdown]
# Where does an outline snap to an edge, and where does it stay? Fur is texture: few pixels have a
# twin, and dark stripes talk to dark stripes. What the network is sure of far from any edge,
# refinement cannot take back: it moves outlines, it does not know what it looks at. The CRF hears
# all pixels and returns to the first mask in every round; on soft edges it may run over to all
# that has the same colours.

# %% [markdown]
# ## 4.9 Under your hand
#
# The scene, with the network's own masks. Click any pixel: the table shows its affinities, a row
# for each ring of the recipe, a column for each direction. The keys `,` and `.` step through PAMR;
# the curtain shows the picture, or the masks before.

# %%
from wsfcn.show.explorer import Explorer

Explorer(network, samples[:1], stage="pamr", step=0, left="before", pixel=pixels["worst"])

# %% [markdown]
# **What to notice.** The pixel that is marked is the *worst* of section 4.2, now asked on the small
# masks, as in training: a ring counts cells, and one cell is four pixels of the scene. Click beside
# it, into one colour, and watch where the bright cells of the table go. Then the photo, with the
# network for photos: how many of a pixel's weights are large in fur?

# %%
Explorer(on_photos, {"photo": view}, stage="pamr", step=0, left="before")

# %% [markdown]
# ## 4.10 The numbers of this run
#
# Kept with the executed notebook, so that runs can be compared.

# %%
from wsfcn.study.record import record

record("leak", {kind: round(value, 4) for kind, value in leaks.items()})
record("scene_mean_iou", dict(zip(map(str, chosen), [round(v, 2) for v in by_step], strict=True)))
for name, measure in zip(
    ("mean_iou", "boundary_iou", "milliseconds"), (iou, outline, ms), strict=True
):
    record(name, versus[measure].to_dict())
record("best_steps", best.set_index("masks")["steps"].to_dict())
record("right_labels", {k: round(float(v[0, at]), 4) for k, v in areas.items()})
record("wrong_labels", {k: round(float(v[1, at]), 4) for k, v in areas.items()})
record("open_gates", {k: round(v[at], 4) for k, v in gates.items()})
record("photo_found_by_network", round(float(share), 4))
record("photo_edges", {name: round(value, 3) for name, value in edges.items()})

# %% [markdown]
# ## In the paper
#
# WS-FCN (section III, Figure 5) takes PAMR from its baseline (Araslanov and Roth, CVPR 2020) and
# has no table about it. The released code gives it 10 steps and dilations 1, 2, 4, 8, 12, 24, on
# maps of 81 x 81 pixels. The paper's text says that the mask loss is used before *and* after PAMR;
# the released code uses it once, on labels made after it. For the dense CRF there are numbers:
#
# | protocol | without CRF | with CRF | gain |
# | :-- | --: | --: | --: |
# | paper, VOC 2012 val, 4 scales + flip (Table IV) | 61.57 | 63.23 | +1.66 |
# | the same, image labels given (§) | 64.02 | 65.02 | +1.00 |
# | paper, COCO 2014 val (Table V) | 27.34 | 27.53 | +0.19 |

# %%
Markdown(
    f"Ours, {scenes} drawn scenes of 128 pixels, one scale, no flip, image labels given: "
    f"{versus.loc['unrefined', iou]:.1f} without, {versus.loc[last, iou]:.1f} with CRF, "
    f"{theirs[iou]:+.1f}; with PAMR on enlarged masks instead, {ours[iou]:+.1f}. Compare the two "
    "*gains*, not the heights: flat colours and black outlines are an easy case for anything that "
    "follows colour, and photos are not."
)

# %% [markdown]
# ## Recap
#
# * PAMR averages the mask over 48 neighbours at six distances, weighted by likeness of **colour**
#   in units of the local spread. Nothing is learned, and each class is on its own.
# * A few steps move borders to edges; many drain. Dilations count pixels of the **mask**, so they
#   mean different things on maps of different size.
# * A dense CRF remembers the first mask and hears all pixels: it can keep what PAMR drains, and is
#   fit for afterwards. PAMR is fit for every step of training.
# * Thresholds relative to a class's own maximum turn masks into labels; *nobody* and *several*
#   become 255; the gate shuts where a class is lost.
#
# ## Exercises
#
# Write your code in place of the dots and run the cell.
#
# **1. How far does a share travel?** A single pixel of a mask is 1, all others are 0, and the image
# has one colour. After this many steps with these dilations, how many pixels to the right is the
# farthest pixel that has heard of it?


# %% tags=["exercise"]
def reach(steps, dilations):
    """A number of steps and a tuple of dilations -> pixels."""
    # begin solution
    return steps * max(dilations)
    # end solution


def case(steps, dilations, hint):
    dot = torch.zeros(1, 1, 1, 100)
    dot[..., 0] = 1
    heard = PAMR(steps, dilations)(torch.full((1, 3, 1, 100), 0.5), dot)
    return (steps, dilations), int(heard[0, 0, 0].nonzero().max()), hint


judge(
    reach,
    case(1, (1, 2, 4), "In one step a pixel asks its farthest ring directly."),
    case(3, (1, 2, 4), "Each step starts where the last one ended."),
    case(0, (1, 2, 4), "Without a step, nothing moves."),
)

# %% [markdown]
# **2. One pixel's affinities.** `pixel` is a colour (3,), `near` the colours of its neighbours
# (n, 3), in rings of 8; the standard deviation is that over the neighbours and, once for each
# ring, the pixel itself. Return the weights (n,). What do you get where all colours are the same?


# %% tags=["exercise"]
def my_affinities(pixel, near, temperature):
    """Colours (3,) and (n, 3) -> weights (n,)."""
    # begin solution
    sigma = torch.cat([near, pixel.expand(len(near) // 8, 3)]).std(0)
    distance = (near - pixel).abs() / (1e-8 + temperature * sigma)
    return (-distance.mean(1)).softmax(0)
    # end solution


def case(image, hint):  # the package's answer for the middle of a 5 x 5 image
    asked = PAMR(dilations=(1, 2))
    near = torch.stack([image[0, :, 2 + y, 2 + x] for y, x in asked.offsets])
    return (image[0, :, 2, 2], near, 0.1), asked.affinities(image)[0, :, 2, 2], hint


noise = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(1))
judge(
    my_affinities,
    case(noise, "Compare with the formula: mean over the colours, then a softmax over neighbours."),
    case(noise / 4, "With a quarter of the contrast the weights must be the same."),
    case(torch.full((1, 3, 5, 5), 0.3), "One colour: 0 divided by 0. Whom should a pixel prefer?"),
)

# %% [markdown]
# **3. From masks to labels.** Masks (K+1, H, W) with the background first, and one threshold for
# each (K+1,). Return the label map (H, W): the class that alone is above its threshold, else 255.


# %% tags=["exercise"]
def my_labels(masks, thresholds):
    """(K+1, H, W) and (K+1,) -> (H, W) with 0..K and 255."""
    # begin solution
    claims = masks > thresholds[:, None, None]
    return claims.int().argmax(0).where(claims.sum(0) == 1, 255)
    # end solution


def case(pixel, hint):  # the package's rules, with a second pixel where every mask is 1
    masks = torch.tensor([pixel, [1.0, 1.0, 1.0]]).T[:, None]
    wanted = pseudo_labels(masks[None], torch.ones(1, 2), (1, 2))[0]
    return (masks, torch.tensor([0.7, 0.6, 0.6])), wanted, hint


judge(
    my_labels,
    case([0.8, 0.1, 0.1], "The background is a class like the others, with label 0."),
    case([0.1, 0.1, 0.8], "The last class, alone above its threshold, has label K."),
    case([0.65, 0.2, 0.1], "0.65 is the largest share, but below 0.7: nobody claims the pixel."),
    case([0.1, 0.7, 0.65], "Two classes are above their thresholds: not sure, 255."),
)

# %% [markdown]
# **4. PAMR with a memory.** After each step, mix the result with the *first* mask: `keep` parts of
# the first mask, `1 - keep` parts of the step. `PAMR(1)(image, masks)` is one step. Then use your
# function in section 4.5: which `keep` is best after 20 steps, on small and on enlarged masks?


# %% tags=["exercise"]
def with_memory(image, masks, steps, keep):
    """(1, 3, H, W), (1, C, H, W), a number, 0..1 -> masks (1, C, H, W)."""
    # begin solution
    now = masks
    for _ in range(steps):
        now = keep * masks + (1 - keep) * PAMR(1)(image, now)
    return now
    # end solution


def case(steps, keep, wanted, hint):
    return (image, given, steps, keep), wanted, hint


image, given = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
half = (given + PAMR(1)(image, given)) / 2
judge(
    with_memory,
    case(3, 0.0, PAMR(3)(image, given), "Without memory it is PAMR itself."),
    case(3, 1.0, given, "With nothing but memory, nothing changes."),
    case(1, 0.5, half, "After one step: half the first mask, half the step."),
    case(
        2, 0.5, (given + PAMR(1)(image, half)) / 2, "Mix after *every* step, with the *first* mask."
    ),
)

# %% [markdown]
# ## Read on
# * Araslanov, Roth: *Single-Stage Semantic Segmentation from Image Labels*, CVPR 2020
#   ([arXiv 2005.08104](https://arxiv.org/abs/2005.08104)). PAMR, pseudo labels, the gate.
# * Krähenbühl, Koltun: *Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials*,
#   NIPS 2011. The dense CRF.
# * Wang, Zhang, Zhang, Tang: *Coupling Global Context and Local Contents for Weakly-Supervised
#   Semantic Segmentation*, IEEE TNNLS 2023 ([arXiv 2304.09059](https://arxiv.org/abs/2304.09059)).
# * Next: [05_training](05_training.ipynb) puts the pseudo labels to work.
