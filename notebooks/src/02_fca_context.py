# %% [markdown]
# # 2 · What a mask gains from looking around
#
# In notebook 1 purple was **background incompleteness**: background that a mask paints with an
# object's class. The authors of WS-FCN say why it happens: the network "is not able to capture
# sufficient object context". Their cure is a module called **FCA**, *flexible context
# aggregation*. This notebook takes FCA apart, and then sets out to cause the disease and to test
# the cure.
#
# **Afterwards you will be able to**
#
# * draw what a cell of a network *can* see, and what it *does* see;
# * read attention maps with the right suspicion, and test what an attention is worth;
# * write the bill of a context module, in parameters and in operations;
# * turn a knob that ought to cause background incompleteness, measure what it really does, and say
#   how sure you are.
#
# **You need** [01_cams](01_cams.ipynb), and one course in deep learning. Other terms are
# explained where they first appear.
#
# | profile | what it is for | time on 2 CPU cores |
# | --- | --- | --- |
# | `smoke` | testing: 8 scenes, so the intervals are wide | 20 s |
# | `laptop` | reading: 120 scenes | 50 s |

# %% tags=["parameters"]
# schema: wsfcn.study.parameters.Context
profile = "smoke"  # how much work: smoke, laptop or paper
seed = 0  # seed of everything random
photo = ""  # a photo of yours; empty: one of scikit-image
model = "lite-scenes"  # network with FCA: a name or a file
scenes = 8  # scenes that are scored, of each kind
shown = 2  # scenes that are drawn
resamples = 200  # draws of the bootstrap

# %%
import copy
from pathlib import Path

import numpy as np
import pandas as pd
import skimage
import torch
from IPython.display import Markdown
from PIL import Image
from torch import nn

import wsfcn
from wsfcn.data import build as build_data
from wsfcn.data.images import read_image
from wsfcn.data.transforms import to_tensor
from wsfcn.show import context as draw
from wsfcn.study.record import record

network = wsfcn.load(model).requires_grad_(False)
recipe = network.recipe
val = build_data(recipe.data)[1]
samples = [val[i] for i in range(min(scenes, len(val)))]
pixels = torch.stack([to_tensor(sample.image) for sample in samples])

# %% [markdown]
# ## 2.1 How far can one cell see?
#
# **Question.** A blue cell of a picture may be sky, sea or a blue car. Only its surroundings tell.
# How much of the surroundings can reach the decision about one place?
#
# The network shrinks an image to a **feature map**: a grid of cells, 8 px apart, with some numbers
# (*channels*) in each. FCA reads that map, $X$, and gives back one of the same size, $Y$:
#
# ```
#        ┌─ strips k = 1 ─ x channel attention ─┐
#        ├─ strips k = 3 ─ x channel attention ─┤
#   X ───┼─ strips k = 5 ─ x channel attention ─┼─ 1 x 1 convolution ─ E ─ SRM ─ Y
#        ├─ strips k = 7 ─ x channel attention ─┤
#        └─ mean over the image ────────────────┘
#        └──────────────── MCLM ───────────────────────────────────────┘
# ```
#
# Its first half, **MCLM** (*multi-scale context learning module*), has four branches. Each looks
# along **strips**: kernels that are $k$ cells long and one wide, once down and then across, once
# across and then down:
#
# $$ f_k = C_{1 \times k}\big(C_{k \times 1}(X)\big) + C_{k \times 1}\big(C_{1 \times k}(X)\big),
#    \qquad k = 1, 3, 5, 7. $$
#
# A **dilation** of 2 leaves a gap of one cell between neighbouring *taps* (the weights of a
# kernel), so that seven taps span 13 cells. The **nominal receptive field** of an output cell is
# the set of input cells that have any path to it. Blue below: that of the cell in the middle.

# %%
strips = list(zip(recipe.model.strips, recipe.model.dilations, strict=True))
cells = pixels.shape[-1] // 8
draw.reach(samples[0].image, cells, strips)

# %% [markdown]
# **What to notice.** Two strips in a row reach a whole $k \times k$ square, because the second
# strip reads cells that the first has already filled. And the square has *holes*: the cells
# between the blue ones have no path to the middle at all.
#
# Do not take a drawing's word for it. A cell has a path to the output exactly if the gradient of
# the output with respect to that cell is not zero. So we ask the real strips:

# %%
from wsfcn.model.fca import StripConv


def cells_read(strip, side):
    """How many cells of a side x side map the middle output of a strip reads."""
    x = torch.ones(1, strip.column_first.in_channels, side, side, requires_grad=True)
    strip(x)[..., side // 2, side // 2].sum().backward()
    return int((x.grad.abs().sum(1) > 0).sum())


pairs = zip(strips, network.context.strips, strict=True)
reads = {k: cells_read(strip, cells) for (k, _), strip in pairs}


# %% [markdown]
# ## 2.2 How far does it really see?
#
# **Question.** That a path exists does not mean that it matters. Which pixels really change what
# comes out?
#
# The **effective receptive field** answers with gradients of the *trained* network: how much does
# the strength of one output cell, half the sum of its squared channels, change when a pixel
# changes? Above, each pixel of a real scene; below, each cell of the feature map that FCA reads.


# %%
def sensitivity(output, inputs):
    """Size of d(strength of the middle cell) / d(input) over the channels, for each input."""
    middle = output[..., output.shape[-2] // 2, output.shape[-1] // 2]
    gradients = torch.autograd.grad(middle.square().sum() / 2, inputs, retain_graph=True)
    return [gradient.norm(dim=1).numpy() for gradient in gradients]


x = network.normalise(pixels[:16]).requires_grad_()
stages = network(x, stages=True).stages
places = {"before FCA": stages["high"]}
places |= {f"k = {k}": stages["strips"][:, i] for i, (k, _) in enumerate(strips)}
places["after FCA"] = stages["context"]
seen = {name: sensitivity(place, [x, stages["high"]]) for name, place in places.items()}
del stages, places


# %%
def blocks(gradient):
    """Gradients of single pixels flicker; means over 4 x 4 px can be looked at."""
    return torch.nn.functional.avg_pool2d(torch.from_numpy(gradient[None]), 4)[0].numpy()


draw.map_grid(
    [samples[0].image] * 2,
    ["pixels", "cells"],
    {name: [blocks(on_x[0]), on_cells[0]] for name, (on_x, on_cells) in seen.items()},
    "size of the gradient, share of the map's maximum",
    "Effective receptive fields of the middle cell, on the pixels of a scene and on the cells of "
    "its feature map, before FCA, for each strip and after FCA. On the cells the strips show "
    "lattices of 1, 9, 25 and 49 points.",
)


# %%
def half_radius(maps, pitch):
    """Radius in px about the middle that holds half of the sum of all maps (n, side, side)."""
    side = maps.shape[-1]
    away = pitch * np.hypot(*(np.mgrid[:side, :side] - side // 2)).ravel()
    order = np.argsort(away)
    held = maps.sum(0).ravel()[order].cumsum()
    return away[order][np.searchsorted(held, held[-1] / 2)]


radius = pd.DataFrame(
    {n: [half_radius(a, 1), half_radius(b, 8)] for n, (a, b) in seen.items()},
    ["on the pixels, px", "on the feature map, px"],
).T
radius.round(0).astype(int)

# %% [markdown]
# The table gives the radius around the middle that holds *half* of all gradient, over the first 16
# scenes (or as many as there are).

# %%
k, dilation = strips[-1]
longest, summed = (seen[name][1].sum(0) for name in (f"k = {k}", "after FCA"))
away = abs(np.mgrid[:cells, :cells] - cells // 2).max(0)
outer = longest[away == dilation * (k // 2)].sum() / longest.sum()
even = 1 - (k - 2) ** 2 / k**2
peak = summed[away == 0].sum() / summed[(away > 0) & (longest > 0)].mean()
before, after = (radius.loc[f"{when} FCA", "on the pixels, px"] for when in ("before", "after"))
Markdown(
    "**What to notice.**\n"
    "* *Lower row, cells.* The lattices of section 2.1, now with their learned strengths. Of the "
    f"gradient of the longest strips {outer:.0%} lies in the outermost cells, where {even:.0%} "
    "would lie if all taps were alike: training "
    f"{'did not switch them off' if outer > even / 4 else 'nearly switched them off'}.\n"
    f"* *After FCA* the middle cell counts {peak:.0f} times as much as the mean of the others: "
    "every branch contains it, few contain the corners.\n"
    "* *Upper row, pixels.* Even *before* FCA a cell listens to a good part of the scene: the "
    "backbone's many layers have mixed it already. The pixel radius in the table is "
    f"{before:.0f} px before FCA and {after:.0f} px after it. How far a context module *can* look "
    "says little where the features it looks at have seen much; papers tend to draw the lattices."
)

# %% [markdown]
# ## 2.3 What do the attentions switch?
#
# **Question.** FCA has two attentions. Do they look where we would?
#
# * **Channel attention** (in MCLM): from the mean and the maximum of each channel of $f_k$, a tiny
#   network computes a factor between 0 and 1 for each channel. One tiny network serves all four
#   branches.
# * **SRM** (*spatial recalibration module*), the second half of FCA: from the mean and the maximum
#   over the *channels* of each cell, a 3 x 3 convolution computes a factor $s$ between 0 and 1 for
#   each cell. The map $E$ becomes $E + s \cdot E$, so a cell can at most be doubled.
#
# Besides scenes we look at a photo. The network was trained on drawings; does it carry over?

# %%
path = photo or Path(skimage.__file__).parent / "data" / "motorcycle_left.png"
picture = Image.fromarray(read_image(path))
picture.thumbnail((256, 256), Image.Resampling.BICUBIC)
images = [samples[0].image, samples[1].image, np.asarray(picture)]
titles = ["scene 0", "scene 1", "photo"]
with torch.inference_mode():
    outputs = [network(network.normalise(to_tensor(image)[None]), stages=True) for image in images]
attention = [output.stages["channel_attention"][0].numpy() for output in outputs]
branches = [f"k = {k}" for k, _ in strips]
draw.switches(dict(zip(titles, attention, strict=True)), branches)

# %%
with torch.inference_mode():
    stem = network.backbone.stem(network.normalise(pixels))
    whole = network.finish(stem, pixels.shape[-2:], stages=True).stages
a = whole["channel_attention"]
settled = float(((a < 0.05) | (a > 0.95)).float().mean())
same = float(((a > 0.5) == (a.mean((0, 1)) > 0.5)).float().mean())
typical = float(whole["strips"].square().mean().sqrt())
Markdown(
    f"**What to notice.** {settled:.0%} of the values lie below 0.05 or above 0.95, and {same:.0%} "
    f"agree with one and the same pattern, whatever the branch and whatever the scene (over "
    f"{len(samples)} scenes). The closer both are to 100 %, the less these switches choose: one "
    f"that never moves could be folded into the weights. The numbers of $f_k$, which they see, "
    f"have a typical size (root mean square) of {typical:.0f}."
)

# %% [markdown]
# Why does that size matter? Nothing normalises $f_k$ before the attention reads it. Large numbers
# go into its sigmoid, which then answers 0 or 1, and where a sigmoid is flat, gradients die: the
# switches freeze early. That the four branches *share* the tiny network makes them alike.
#
# Now the other attention. The maps of the strips below show the strength of each cell after the
# channel attention; the last column is what the network finally calls an object.

# %%
columns = {
    name: [
        (o.stages["strips"][0, i] * o.stages["channel_attention"][0, i, :, None, None]).norm(dim=0)
        for o in outputs
    ]
    for i, name in enumerate(branches)
}
columns["SRM (0 to 1)"] = [o.stages["spatial_attention"][0, 0] for o in outputs]
columns["object (0 to 1)"] = [1 - o.masks[0, 0] for o in outputs]
draw.map_grid(
    images,
    titles,
    columns,
    "share of the map's maximum",
    "Two scenes and a photo: strength of the four strip branches, attention of the SRM, and what "
    "the network takes for an object.",
)

# %%
truth = np.stack([sample.mask for sample in samples])
s = whole["spatial_attention"][:, 0]
on_object = torch.from_numpy((truth > 0) & (truth < 255))[:, 4::8, 4::8]  # middle of each cell
rim = torch.ones_like(on_object)
rim[:, 1:-1, 1:-1] = False
srm = {"objects": s[on_object], "background": s[~on_object & ~rim], "rim": s[rim]}
srm = {place: round(float(values.mean()), 3) for place, values in srm.items()}
pd.DataFrame(srm, ["mean of s"]).rename(columns={"rim": "outermost cells of the map"})

# %%
most = max(srm, key=srm.get)
points = {
    "objects": "It points at objects.",
    "background": "It points at the ground, not at objects.",
    "rim": "It does not point at objects but at the *rim of the map*, where its 3 x 3 convolution "
    "reads padding.",
}
Markdown(
    "**What to notice.**\n"
    "* The strip maps get darker towards the edges of the image, where taps read **padding**, the "
    "zeros that a convolution sees beyond the map. The strength of all channels together is no "
    "evidence for a class: compare with the last column, what the network calls an object.\n"
    "* With dilation 2 neighbouring cells share no input, so odd and even cells can drift apart. "
    "This is called *gridding*: look for stripes.\n"
    f"* The SRM of this network answers {srm[most]:.2f} to {'the ' * (most == 'rim')}{most}, and "
    f"{srm['objects']:.2f} to objects, on average. {points[most]}"
)

# %% [markdown]
# ### A picture of attention proves nothing
# What an attention *shows* and what it *does* are different things. The test is an intervention:
# take the part out of the trained network, and look at what changes.
# Below, **mIoU** is the mean over the classes of intersection over union, the pixels where mask
# and truth agree on the class divided by those where at least one of them says it.

# %%
from wsfcn.evaluate import ConfusionMatrix


class Fixed(nn.Module):
    """An attention that says the same of every image."""

    def __init__(self, values):
        super().__init__()
        self.values = values[None, :, None, None]

    def forward(self, f):
        return self.values


def masks_of(change):
    """Label maps of a copy of the network whose context module was changed."""
    twin = copy.deepcopy(network)
    change(twin.context)
    with torch.inference_mode():
        return twin.finish(stem, pixels.shape[-2:]).masks.argmax(1).numpy().astype(np.uint8)


# %%
def no_srm(fca):
    fca.srm = None


def fixed_attention(fca):
    fca.attention = nn.ModuleList(Fixed(values) for values in whole["channel_attention"].mean(0))


def without(branch):
    """A change that removes what the embedding reads of one branch."""
    width = network.context.embed[0].out_channels

    def change(fca):
        fca.embed[0].weight[:, branch * width : (branch + 1) * width] = 0

    return change


changes = {"as trained": lambda fca: None, "no SRM": no_srm, "attention fixed": fixed_attention}
changes |= {f"without {name}": without(i) for i, name in enumerate(branches)}
changes["without image mean"] = without(len(branches))

# %%
found = {name: masks_of(change) for name, change in changes.items()}
rows = {}
for name, labels in found.items():
    counts = ConfusionMatrix(len(val.classes) + 1)
    counts.update(labels, truth)
    moved = 100 * (labels != found["as trained"]).mean()
    rows[name] = {"mIoU, %": 100 * counts.mean_iou, "labels that change, %": moved}
removed = pd.DataFrame(rows).T
removed.round(1)

# %% [markdown]
# *Protocol: one scale, no flip, no class filter, the first `scenes` validation scenes.*
#
# %%
gone = removed.drop("as trained")
gone["mIoU, %"] -= removed.loc["as trained", "mIoU, %"]
off, cut = gone.iloc[:2], gone.iloc[2:-1]
moves, costs = "labels that change, %", "mIoU, %"
hardly = off[moves].max() < cut[moves].min() / 2
Markdown(
    "**What to notice.** Freezing the channel attention at its average, or removing the SRM, "
    f"changes at most {off[moves].max():.1f} % of the labels and moves mIoU by "
    f"{off[costs].min():+z.1f} to {off[costs].max():+z.1f} points. Taking out one strip branch "
    f"changes {cut[moves].min():.1f} to {cut[moves].max():.1f} % and moves mIoU by "
    f"{cut[costs].min():+z.1f} to {cut[costs].max():+z.1f}. *In this network* "
    + ("the strips work and the attentions hardly do." if hardly else "the attentions work, too.")
)

# %% [markdown]
# (The branches were trained together, so a missing one is missed by more than it would be had the
# others grown up without it.) That says nothing about other networks; it says which test to run
# on them.
#
# ## 2.4 What does context cost?
#
# **Question.** One dense kernel of $k \times k$ taps reaches as far as two crossed strips. Why not
# take that? And what do other context modules cost?
#
# For $C$ input and $w$ output channels a dense kernel has $k^2 C w$ weights; the two crossed strips
# of a branch have $2 k (C w + w^2)$. In the paper $C = 4096$ and $w = 256$:

# %%
C, w = 4096, 256
lengths = (1, 3, 5, 7, 9)
weights = pd.DataFrame(
    {
        "k x k kernel": [k * k * C * w / 1e6 for k in lengths],
        "crossed strips": [2 * k * (C * w + w * w) / 1e6 for k in lengths],
    },
    [f"k = {k}" for k in lengths],
)
weights.T.round(1).rename_axis("weights of a branch, millions")

# %% [markdown]
# A strip costs more for $k = 1$ and gains from $k = 3$ on. Now whole modules, the rivals of the
# paper's Table II:
#
# * **ASPP** (*atrous spatial pyramid pooling*), the context module of the paper's baseline: a
#   1 x 1 and three dilated 3 x 3 kernels side by side;
# * **PPM** (*pyramid pooling module*): means over 1, 4, 9 and 36 parts of the image;
# * **non-local**: every cell attends to every other;
# * one **7 x 7** convolution.
#
# **GFLOP**: billions of additions and multiplications for one image. The paper's sizes are built
# without memory or work (PyTorch's `meta` device knows only shapes).

# %%
from torch.utils.flop_counter import FlopCounterMode

from wsfcn.model.context_rivals import ASPP, PPM, LargeConv, NonLocal
from wsfcn.model.fca import FCA, SRM


def modules_of(settings, inputs):
    """The context modules at the widths of a recipe's model, on the meta device."""
    width, dilations = settings.width, settings.dilations
    with torch.device("meta"):
        square = FCA(inputs, width, dilations=dilations)
        square.strips = nn.ModuleList(
            nn.Conv2d(inputs, width, k, padding=d * (k // 2), dilation=d, bias=False)
            for k, d in zip(settings.strips, dilations, strict=True)
        )
        return {
            "FCA": FCA(inputs, width, dilations=dilations),
            "FCA, k x k kernels": square,
            "ASPP": ASPP(inputs, width, rates=settings.rates),
            "non-local": NonLocal(inputs, width),
            "7 x 7": LargeConv(inputs, width),
            "PPM": PPM(inputs, width),
        }


# %%
def bill(settings, inputs, side):
    """Name -> (millions of parameters, GFLOP on a map of side x side cells)."""
    costs = {}
    for name, module in modules_of(settings, inputs).items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.eval()(torch.empty(1, inputs, side, side, device="meta"))
        millions = wsfcn.count_parameters(module) / 1e6
        costs[name] = (millions, counter.get_total_flops() / 1e9)
    return costs


paper = wsfcn.recipes.paper_voc()
costs = {
    "paper: 321 px, 41 x 41 cells": bill(paper.model, C, 41),
    "this course: 128 px, 16 x 16 cells": bill(recipe.model, network.backbone.high_channels, 16),
}
draw.bill(costs)

# %%
from wsfcn.study.params import PAPER, meta_network

base = wsfcn.count_parameters(meta_network(wsfcn.recipes.table1()["baseline"])) / 1e6
at_paper = next(iter(costs.values()))
names = {"non_local": "non-local", "large_conv": "7 x 7", "ppm": "PPM", "fca": "FCA"}
rows = {"ASPP": (base, PAPER[1]["baseline"][1])}
for row, name in names.items():
    rows[name] = (base - at_paper["ASPP"][0] + at_paper[name][0], PAPER[2][row][1])
totals = pd.DataFrame(rows, ["ours", "paper, Tables I and II"]).T.round(2)
totals.T.rename_axis("parameters of the whole network, millions")

# %% [markdown]
# **What to notice.** Strips make a 7-cell reach affordable: with dense kernels the same module
# would be more than twice as large. But FCA is *not* the cheapest: ASPP, which it replaces, has
# fewer parameters and operations. And all of this is small beside the backbone with its 104
# million trained parameters. "Cheap" always needs a *than what*.

# %% [markdown]
# ## 2.5 Taps that never train
#
# **Question.** The text of the paper does not mention dilation. The code its authors released has
# it: 1, 12, 24 and 36. The network is trained on crops of 321 px, and the map then has 41 x 41
# cells. What does a strip with seven taps, 36 cells apart, read there?

# %%
wide = list(zip(paper.model.strips, paper.model.dilations, strict=True))
draw.reach(np.asarray(picture.resize((256, 256))), 41, wide)


# %% [markdown]
# **What to notice.** Orange crosses read padding. (The photo shrinks in the drawing because the
# taps lie so far out.) The middle cell of the longest strips reads... the middle cell. Cells
# elsewhere do better, but a tap 48 or more cells away reads zeros *wherever* on a 41-cell map we
# stand. A weight that only meets zeros gets no gradient. We build these strips and ask them. Below,
# a disc is the size of a tap's gradient; a cross is a gradient of exactly zero.


# %%
def tap_gradients(k, dilation, side):
    """Size of the gradient of each tap, (k,), over the four convolutions of a branch."""
    torch.manual_seed(seed)
    strip = StripConv(4, 4, k, dilation)
    strip(torch.randn(1, 4, side, side)).square().sum().backward()
    squares = sum(p.grad.square().sum((0, 1)).flatten() for p in strip.parameters())
    return squares.sqrt().numpy()


gradients = {(k, d): tap_gradients(k, d, 41) for k, d in wide}
draw.taps(gradients, 41)

# %%
each = C * w + w * w  # weights of one tap, twice for the two paths
dead = sum(2 * int((size == 0).sum()) * each for size in gradients.values())
train = paper.train
rate = train.learning_rate * train.new_factor / (1 - train.momentum)
left = (1 - rate * train.weight_decay) ** (661 * 18)  # steps of 18 epochs of 10,582 images
Markdown(
    f"{dead:,} weights, {dead / at_paper['FCA'][0] / 1e6:.0%} of FCA, never receive a gradient. "
    f"Weight decay is all that happens to them: after 18 epochs, the age of the published network, "
    f"they still have {left:.2f} of their random initial size."
)


# %% [markdown]
# Harmless? During training, yes. But the authors *test* on a canvas of 1024 px, where the map has
# 128 x 128 cells, and there these taps meet real features. Below: the relative change of a branch's
# output when its dead taps are set to zero; random inputs, fresh weights, the dead ones shrunk as
# above.


# %%
def dependence(k, dilation, side):
    """|output - output without the taps that are dead at 41 cells| / |output|."""
    torch.manual_seed(seed)
    strip, x = StripConv(4, 4, k, dilation).requires_grad_(False), torch.randn(1, 4, side, side)
    is_dead = torch.from_numpy(gradients[k, dilation] == 0)
    outputs = []
    for factor in (left, 0):
        twin = copy.deepcopy(strip)
        for p in twin.parameters():
            p.flatten(2)[..., is_dead] *= factor
        outputs.append(twin(x))
    return float((outputs[0] - outputs[1]).norm() / outputs[0].norm())


late = {
    f"k = {k}, dilation {d}": {
        "41 cells (training)": 100 * dependence(k, d, 41),
        "128 cells (test)": 100 * dependence(k, d, 128),
    }
    for k, d in wide
}
pd.DataFrame(late).T.round(1).rename_axis("output that changes, %")

# %% [markdown]
# **What to notice.** Zero at training size, as it must be; not zero at test size. The published
# network thus adds some random numbers of its youth to every test image. Nobody chose that: it
# follows from two settings that are each reasonable. The recipe of this course has dilations of 1
# and 2 on 16 cells, where every tap trains.

# %% [markdown]
# ## 2.6 Can we cause background incompleteness?
#
# **Question.** Does FCA cure what it was made for?
#
# A class that always comes with the same ground teaches the network that the ground *is* the
# class. From image labels alone, nothing says which of the two carries the name. Our scenes have a
# knob for this, **co-occurrence**: the probability that a class stands on its own ground (boats on
# water, trains on tracks, cows in a meadow). Four networks were trained, all from image labels:
#
# | | scenes in training | context |
# | --- | --- | --- |
# | ASPP, mixed | 30 % on their own ground, else on any | ASPP, as in the paper's baseline |
# | FCA, mixed | the same | FCA |
# | ASPP, always home | every class on its own ground, always | ASPP |
# | FCA, always home | the same | FCA |
#
# The rest of the network is the paper's baseline in all four. They are tested on three kinds of
# scene that differ in *one* thing, the ground:
#
# * **home**: the objects stand on their own ground (co-occurrence 1);
# * **away**: the same objects at the same places, pasted on a ground of another family;
# * **empty**: the home ground with no object at all.
#
# **Before you look**, write down what you expect. The usual story goes: who always saw boats on
# water will paint the water with *boat*.

# %%
from wsfcn.data.grounds import FAMILY_OF, grounds

home_set = build_data(recipe.change({"data.scenes.co_occurrence": 1.0}).data)[1]
drawn = [home_set.scene(i) for i in range(min(scenes, len(home_set)))]
families = grounds("val")
kinds, moved_to = {"home": [], "away": [], "empty": []}, []
for index, scene in enumerate(drawn):
    random = np.random.default_rng([seed, index])
    moved_to.append(str(random.choice([f for f in families if f != scene.family])))
    own = families[scene.family][random.integers(len(families[scene.family]))]
    ground = own.paint(home_set.settings.size, random)
    kinds["home"].append(scene.sample.image)
    kinds["away"].append(home_set.scene(index, moved_to=moved_to[index]).sample.image)
    kinds["empty"].append(np.clip(ground, 0, 255).astype(np.uint8))

# %%
from wsfcn.predict import predict

shipped = {
    "ASPP, mixed": "lite-scenes-baseline",
    "FCA, mixed": "lite-scenes-fca",
    "ASPP, always home": "lite-scenes-baseline-cooccurring",
    "FCA, always home": "lite-scenes-fca-cooccurring",
}
exact = np.stack([scene.sample.mask for scene in drawn])
known, labels, rivals = {}, {}, {}


def stem_once(images):
    """The four networks share a frozen backbone, so each batch passes through it once."""
    key = hash(images.numpy().tobytes())
    if key not in known:
        known[key] = network.backbone.stem(images)
    return known[key]


# %%
for name, file in shipped.items():
    rivals[name] = rival = wsfcn.load(file)
    rival.backbone.stem = stem_once
    for kind, images in kinds.items():
        labels[name, kind] = np.stack([found.labels for found in predict(rival, images)])
protocol = rival.recipe.protocol

# %%
from wsfcn.show.cams import mask_grid


def of_scenes(found, exact):
    """One confusion matrix for each scene, (n, 21, 21); rows are the truth."""
    matrices = [ConfusionMatrix(len(val.classes) + 1) for _ in found]
    for counts, mask, right in zip(matrices, found, exact, strict=True):
        counts.update(mask, right)
    return matrices


truths = {"home": exact, "away": exact, "empty": np.zeros_like(exact)}
cases = [(index, kind) for index in range(min(shown, len(drawn))) for kind in kinds]
rows = [drawn[i].sample._replace(image=kinds[kind][i], mask=truths[kind][i]) for i, kind in cases]
rows = [row if row.mask.any() else row._replace(labels=0 * row.labels) for row in rows]
some = {name: np.stack([labels[name, kind][i] for i, kind in cases]) for name in shipped}
right = [row.mask for row in rows]
scores = {name: [m.mean_iou for m in of_scenes(found, right)] for name, found in some.items()}
figure = mask_grid(rows, some, scores, val.classes)
for axis, (_, kind) in zip(figure.axes[:: 2 + len(some)], cases, strict=False):
    axis.set_ylabel(kind, fontsize=12)
figure

# %% [markdown]
# Each group of three rows is one scene. The number over a mask is its IoU, averaged over the
# classes in truth or mask, background included.
#
# **What to notice.** Look at the row *empty* of each group first: no object, so every colour there
# would be background that is claimed *by the ground alone*. Then compare *home* and *away* in the
# two right columns of masks, whose networks never saw a class away from home.
#
# Now in numbers, over all scenes. **Background incompleteness** is, for us, the share of the
# background that is painted with any class. How sure can we be with so few scenes? The
# **bootstrap** asks: what if we had met other scenes of this kind? It draws the scenes again, with
# replacement, many times, and computes the measure each time; the middle 95 % of the values are
# the interval. All networks meet the same draws, so that differences between them can be judged,
# too.

# %%
n = len(drawn)
random = np.random.default_rng(seed)
draws = np.vstack([np.ones(n), random.multinomial(n, np.full(n, 1 / n), size=resamples)])


def claimed(matrices):
    """Share of the background painted with a class, %: of all scenes, then of each draw."""
    return 100 * (draws @ matrices[:, 0, 1:].sum(1)) / (draws @ matrices[:, 0].sum(1))


def object_found(matrices):
    """Share of the objects' pixels painted with some class, %, likewise."""
    objects = matrices[:, 1:].sum((1, 2))
    return 100 * (draws @ matrices[:, 1:, 1:].sum((1, 2))) / (draws @ objects)


def mean_iou(matrices):
    """mIoU, %, likewise."""
    total = (draws @ matrices.reshape(n, -1)).reshape(-1, *matrices.shape[1:])
    hits = np.einsum("nii->ni", total)
    with np.errstate(invalid="ignore"):
        return 100 * np.nanmean(hits / (total.sum(1) + total.sum(2) - hits), axis=1)


# %%
measures = {"background claimed": claimed, "objects found": object_found, "mIoU": mean_iou}
values = {}
for kind in ("home", "away"):
    for title, measure in measures.items():
        values[f"{kind}: {title}"] = {
            name: measure(np.stack([m.matrix for m in of_scenes(labels[name, kind], exact)]))
            for name in shipped
        }


def with_interval(drawn_values):
    """The value, and the middle 95 % of the draws."""
    return (drawn_values[0], *np.percentile(drawn_values[1:], [2.5, 97.5]))


draw.intervals(
    {title: {k: with_interval(v) for k, v in rows.items()} for title, rows in values.items()}
)

# %%
from wsfcn.show.flow import effects as draw_effects

questions = {
    "FCA - ASPP, mixed": ("FCA, mixed", "ASPP, mixed"),
    "FCA - ASPP, always home": ("FCA, always home", "ASPP, always home"),
    "always home - mixed, ASPP": ("ASPP, always home", "ASPP, mixed"),
    "always home - mixed, FCA": ("FCA, always home", "FCA, mixed"),
}
effects = {
    question: {t: with_interval(rows[a] - rows[b]) for t, rows in values.items()}
    for question, (a, b) in questions.items()
}
titles = {title: title.replace(" ", "\n") for title in values}
draw_effects({titles[t]: {q: effects[q][t] for q in effects} for t in values})


# %% [markdown]
# *Upper*: each network with its interval. *Lower*: differences between two of them, scene by scene;
# where an interval holds 0, no difference can be told.
#
# The pictures hold one more clue, the *names* of what is still painted away from home. Of the
# objects' painted pixels, how many carry a class that belongs to the **new** ground?


# %%
def renamed(name):
    """Share of the objects' painted pixels away from home with a class of the new ground, %."""
    hits = total = 0
    for found, right, family in zip(labels[name, "away"], exact, moved_to, strict=True):
        guests = [i for i, c in enumerate(val.classes, 1) if FAMILY_OF[c] == family]
        painted = found[(right > 0) & (right < 255) & (found > 0)]
        if guests:  # some grounds belong to no class
            total, hits = total + painted.size, hits + np.isin(painted, guests).sum()
    return 100 * hits / max(total, 1)


named_by_ground = {name: float(renamed(name)) for name in shipped}
pd.DataFrame(named_by_ground, ["named after the new ground, %"]).round(1)

# %%
empty = {name: 100 * float((labels[name, "empty"] > 0).mean()) for name in shipped}


def verdict(question, title):
    """The effect in words; where an interval holds 0, it may be chance."""
    value, low, high = effects[question][title]
    told = f"{value:+z.1f} points ({low:+z.1f} to {high:+z.1f})"
    return told if low > 0 or high < 0 else f"{told}, which may be chance"


knob, cure = "always home - mixed, ASPP", "FCA - ASPP, always home"
Markdown(
    f"* *Empty scenes.* Of the bare home grounds {max(empty.values()):.1f} % is painted by the "
    "network that paints most of them.\n"
    "* *The knob*, with ASPP: background claimed at home "
    f"{verdict(knob, 'home: background claimed')}; objects found away from home "
    f"{verdict(knob, 'away: objects found')}.\n"
    "* *The cure*, FCA against ASPP, both trained always at home: background claimed at home "
    f"{verdict(cure, 'home: background claimed')}; objects found away from home "
    f"{verdict(cure, 'away: objects found')}; mIoU at home {verdict(cure, 'home: mIoU')}.\n\n"
    f"*Protocol: {protocol.describe()}; {n} scenes of each kind; one training seed each.*"
)

# %%
home = effects[knob]["home: background claimed"]
if max(empty.values()) > 1:
    disease = "*We caused what we expected*: bare ground is painted."
elif home[1] > 0:
    disease = f"""*Half of what we expected*: always at home, ASPP claims {home[0]:.1f} points more
    of the background around objects; bare ground stays bare."""
else:
    disease = (
        "*Not what we expected*: being always at home did not make the network paint the ground."
    )
other = f"""What breaks is recognition. Away from home
{100 - values["away: objects found"]["ASPP, always home"][0]:.0f} % of the objects' area is missed
by the ASPP that was trained always at home, and of what it paints
{named_by_ground["ASPP, always home"]:.0f} % is named after the new ground."""


# %%
def claims(question):
    low, high = effects[question]["home: background claimed"][1:]
    return "*more*" if low > 0 else "*less*" if high < 0 else "about as much"


Markdown(
    f"**What to notice.**\n* {disease} "
    f"{other if effects[knob]['away: objects found'][2] < 0 else ''}\n"
    f"* *The cure.* Tested at home, FCA in place of ASPP claims {claims(cure)} where both were "
    f"trained always at home, {claims('FCA - ASPP, mixed')} where on mixed grounds. The paper "
    "expects *less*."
)

# %% [markdown]
# * *The ground may give the name, the outline the place.* A classifier can use the ground in two
#   ways. "A boat **or** water" paints the water. "A thing **and** water" paints nothing on bare
#   water, and calls any thing on it a boat. Image labels allow either; which one is learned depends
#   on data and losses. Ours draw objects with hard outlines, and PAMR pulls masks to outlines.
#   Photos with soft edges may behave as the story says.
# * *What this does not say.* It compares single, short trainings on drawings. The intervals tell
#   how much hangs on the choice of *scenes*; a second training would differ, too.
#
# ## 2.7 A part and its neighbours
#
# The paper adds the parts of FCA to its baseline, on PASCAL VOC 2012 val. Ours are the networks
# that the package carries, scored on all validation scenes. **SF2** is the paper's other part,
# and the subject of notebook 3; it replaces the baseline's way to add fine detail, a *skip*
# connection.

# %%
from wsfcn.build import SHIPPED
from wsfcn.evaluate import Score
from wsfcn.weights import read_safetensors


def score_of(name):
    """The score that a network of the package carries in its file."""
    header = read_safetensors(SHIPPED / f"{name}.safetensors")[1]
    return Score.from_dict(header["provenance"]["score"])


table1 = {
    "baseline (ASPP)": ("lite-scenes-baseline", 58.38, 87.58),
    "+ MCLM": ("lite-scenes-mclm", 59.71, 88.41),
    "+ MCLM + SRM = FCA": ("lite-scenes-fca", 60.13, 88.55),
    "+ SF2": ("lite-scenes-sf2", 59.45, 89.00),
    "+ FCA + SF2 = WS-FCN": ("lite-scenes", 60.68, 89.32),
}
ours = {name: score_of(file) for name, (file, *_) in table1.items()}

# %%
start = ours["baseline (ASPP)"]
gains = {
    name: {
        "paper: mIoU": miou,
        "gain": f"{miou - 58.38:+.2f}",
        "PixAcc": f"{accuracy:.2f}",
        "ours: mIoU": round(100 * ours[name].mean_iou, 2),
        "gain ": f"{100 * ours[name].difference(start):+.2f}",
        "PixAcc ": f"{100 * ours[name].pixel_accuracy:.2f}",
    }
    for name, (_, miou, accuracy) in table1.items()
}
pd.DataFrame(gains).T

# %% [markdown]
# *Paper: one scale with flip, single run (its text says "single scale"; by its Table III these are
# the numbers with flip). Ours: one scale with flip; classes with a score below 0.1 are left out
# (class filter); masks are not moved to image edges afterwards (no CRF); one training seed.*
#
# %%
alone, added = (
    100 * ours[more].difference(ours[less])
    for more, less in (
        ("+ MCLM + SRM = FCA", "baseline (ASPP)"),
        ("+ FCA + SF2 = WS-FCN", "+ SF2"),
    )
)
Markdown(
    "**What to notice.** In the paper FCA gains 1.75 points on the baseline, and 1.23 where SF2 is "
    f"there already. Ours: {alone:+z.2f} and {added:+z.2f}. These are single trainings; how much "
    "of it is an accident of the seed is the subject of notebook 6."
)

# %% [markdown]
# **An experiment.** In the released code the batch norms of ASPP and FCA keep the mean 0 and
# variance 1 they start with, so they normalise nothing; in our recipe they use the statistics of
# the batch (`model.context_norms`). Does that matter? In the baseline fine detail comes from the
# skip, which is put *beside* the context, and one convolution reads both. A context that is far
# louder could drown the detail. The package carries ASPP and FCA trained either way, all else
# alike. How loud is each voice in what that convolution adds up?


# %%
from wsfcn.model.layers import resize


def voices(rival, some=16):
    """Standard deviation of what context and skip add to the fused map."""
    with torch.inference_mode():
        part = type(stem)(*(feature[:some] for feature in stem))
        stages = rival.finish(part, pixels.shape[-2:], stages=True).stages
        skip = rival.fusion.skip(stages["low"]).relu()
        around = resize(stages["context"], skip.shape[-2:])
        kernel = rival.fusion.fuse[0].weight
        halves = kernel.split([around.shape[1], skip.shape[1]], dim=1)
        spoken = [
            nn.functional.conv2d(x, half, padding=1).std()
            for x, half in zip((around, skip), halves, strict=True)
        ]
    return float(spoken[0] / spoken[1])


# %%
ratio, reached = {}, {}
for ending, norms in {"-unnormalised": "unnormalised", "": "normalised"}.items():
    for context, row in {"ASPP": "baseline", "FCA": "fca"}.items():
        rival = wsfcn.load(f"lite-scenes-{row}{ending}")
        rival.backbone.stem = stem_once
        masks = [found.labels for found in predict(rival, [sample.image for sample in samples])]
        reached[context, norms] = mean_iou(np.stack([m.matrix for m in of_scenes(masks, truth)]))
        ratio[context, norms] = voices(rival)
columns = {"mIoU, %": {k: v[0] for k, v in reached.items()}, "context : skip": ratio}
square = pd.concat({name: pd.Series(cells).unstack(0) for name, cells in columns.items()}, axis=1)
square = square.loc[["unnormalised", "normalised"]]
square.round(1)

# %%
gap = {norms: reached["FCA", norms] - reached["ASPP", norms] for norms in square.index}
gap["change"] = gap["normalised"] - gap["unnormalised"]
gap = {name: with_interval(drawn_values) for name, drawn_values in gap.items()}
told = {name: "{:+z.1f} ({:+z.1f} to {:+z.1f})".format(*v) for name, v in gap.items()}
low, high = gap["change"][1:]
lost = gap["unnormalised"][2] < 0 < low
lift = {c: reached[c, "normalised"][0] - reached[c, "unnormalised"][0] for c in ("ASPP", "FCA")}
Markdown(
    f"**What to notice.** Unnormalised, FCA is {ratio['FCA', 'unnormalised']:.0f} times as loud as "
    f"the skip and ASPP {ratio['ASPP', 'unnormalised']:.0f} times; normalised they are at "
    f"{ratio['FCA', 'normalised']:.1f} and {ratio['ASPP', 'normalised']:.1f}. FCA - ASPP in mIoU: "
    f"{told['unnormalised']} points unnormalised, {told['normalised']} normalised. The change of "
    f"{told['change']} "
    + ("is more than the choice of scenes explains" if low > 0 or high < 0 else "may be chance")
    + (": FCA's loss was for want of normalisation. " if lost else ". ")
    + f"And normalisation moves both: ASPP by {lift['ASPP']:+z.1f}, FCA by {lift['FCA']:+z.1f}"
    + ("; so FCA's loudness is not the whole story." if lift["ASPP"] > gap["change"][0] else ".")
    + f"\n\n*Protocol: {protocol.describe()}; the first {n} validation scenes; one training each.*"
)

# %% [markdown]
# Only the norms were changed, so the effect is theirs; *how* they work, by balance or by easier
# training, the table does not say. SF2 normalises both streams before they meet, whatever the
# context sends. At the paper's scale, with other widths and thousands of steps more, the balance
# may well be another. A *part* is good or bad only together with its neighbours: that is what
# ablation tables cannot say in one column.
#
# The numbers of this run, kept with the executed notebook, so that runs can be compared:

# %%
record("cells_read", list(reads.values()))
record("half_radius_cells", radius["on the feature map, px"].round(1).to_dict())
record("attention", {"settled": round(settled, 4), "same": round(same, 4)})
record("srm", srm)
record("labels_that_change", removed["labels that change, %"].round(2).to_dict())
dense = {"dense FCA": round(at_paper["FCA, k x k kernels"][0], 2)}
record("parameters", totals["ours"].to_dict() | dense)
record("dead", {"weights": dead, "left": round(left, 3)})
record("dead_at_test", round(late["k = 7, dilation 36"]["128 cells (test)"], 1))
record("measures", {t: {k: round(v[0], 2) for k, v in r.items()} for t, r in values.items()})
record("named_by_ground", {name: round(share, 1) for name, share in named_by_ground.items()})
record("context_to_skip", {", ".join(which): round(v, 2) for which, v in ratio.items()})
record("norms", {", ".join(which): round(v[0], 2) for which, v in reached.items()})
record("normalisation", {name: np.round(v, 1) for name, v in gap.items()})
record("empty_claimed", {name: round(share, 2) for name, share in empty.items()})
record("knob", {title: np.round(v, 1) for title, v in effects[knob].items()})
record("cure", {title: np.round(v, 1) for title, v in effects[cure].items()})
record("table1", {name: row["ours: mIoU"] for name, row in gains.items()})

# %% [markdown]
# ## Recap
# * Two crossed strips reach a square lattice for $2k$ instead of $k^2$ weights per pair of
#   channels. What a cell *can* see is more than what it *does* see.
# * Attention maps are a claim. Whether an attention *does* something is settled by taking it out.
# * FCA is dearer than the ASPP that it replaces, and far cheaper than dense kernels of its reach.
# * Dilations of 24 and 36 on a 41 x 41 map leave 36 % of FCA untrained, yet active at test time.
# * Co-occurrence can make a network paint the ground, or lose the object without it. Measure what
#   you expect, and the other as well; an interval says what a difference is worth.
# * A part is judged together with its neighbours. A missing normalisation can cost more than the
#   part is worth: look at how loud each voice is before you blame the part.
#
# ## Exercises
# Write your code in place of the dots and run the cell; the line below says whether it is right.
#
# **1. The price of a strip.** How many weights have the two crossed strips of one branch, `k` cells
# long, for `inputs` and `width` channels? From which odd `k` on are they cheaper than a dense
# kernel, in the paper's size?

# %% tags=["exercise"]
from wsfcn.study.exercises import judge


def strip_weights(k, inputs, width):
    """The number of weights of a branch of the MCLM (an integer)."""
    # begin solution
    return 2 * k * (inputs * width + width * width)
    # end solution


def counted(*sizes):
    k, inputs, width = sizes
    return sum(p.numel() for p in StripConv(inputs, width, k, 1).parameters())


judge(
    strip_weights,
    ((1, 8, 8), counted(1, 8, 8), "even for k = 1 there are two paths of two convolutions."),
    ((5, 16, 8), counted(5, 16, 8), "the second strip of a path reads the channels of the first."),
)


# %% [markdown]
# **2. Dead or alive.** A strip of `k` taps with a dilation reads a map of `cells` x `cells`. How
# many of its taps can never read anything but padding, wherever on the map the output is? How
# large must the paper's training crop be before all taps of FCA train?


# %% tags=["exercise"]
def dead_taps(k, dilation, cells):
    """The number of taps (of one strip) that only ever read zeros."""
    # begin solution
    offsets = [dilation * (i - k // 2) for i in range(k)]
    return sum(abs(offset) >= cells for offset in offsets)
    # end solution


def without_gradient(k, dilation, cells):
    strip = StripConv(1, 1, k, dilation)
    strip(torch.randn(1, 1, cells, cells)).square().sum().backward()
    return int((strip.column_first.weight.grad == 0).sum())


judge(
    dead_taps,
    ((3, 2, 16), without_gradient(3, 2, 16), "on the course's maps every tap trains."),
    ((7, 36, 41), without_gradient(7, 36, 41), "count from the middle tap, to both sides."),
    ((3, 12, 12), without_gradient(3, 12, 12), "12 cells have offsets from -11 to 11."),
)


# %% [markdown]
# **3. The SRM in three lines.** `e` is the embedding, (B, C, h, w), and `kernel` the weights of the
# SRM's convolution, (1, 2, 3, 3): first those for the mean over the channels, then those for the
# maximum. Return the attention map, (B, 1, h, w).


# %% tags=["exercise"]
def spatial_attention(e, kernel):
    """s = sigmoid(conv3x3([mean over channels; maximum over channels])), padded with zeros."""
    # begin solution
    pooled = torch.cat([e.mean(1, keepdim=True), e.amax(1, keepdim=True)], dim=1)
    return torch.sigmoid(torch.nn.functional.conv2d(pooled, kernel, padding=1))
    # end solution


srm, e, kept = SRM(), torch.randn(2, 5, 6, 6), {}
srm(e, kept)
given = (e, srm.conv.weight.detach())
judge(
    spatial_attention,
    (given, lambda s: s.shape == (2, 1, 6, 6), "a map for each image, of the same size."),
    (given, kept["spatial_attention"], "mean first, maximum second, then the sigmoid."),
)


# %% [markdown]
# **4. Claimed by its own ground.** Purple has two sources: the object's own class that leaks, and
# classes that are not even there but *belong* to this ground. `labels` and `truth` are label maps,
# (H, W), 255 in `truth` does not count; `home` lists the numbers of the classes that belong to the
# ground. Return the share of the background that is painted with one of these. Then use it on
# `labels["ASPP, always home", "empty"]`.


# %% tags=["exercise"]
def claimed_at_home(labels, truth, home):
    """Share (0 to 1) of the background's pixels that carry a class of `home`."""
    # begin solution
    return float(np.isin(labels[truth == 0], home).mean())
    # end solution


small = np.array([[0, 1, 1], [3, 3, 0]], np.uint8), np.array([[0, 1, 0], [0, 255, 0]], np.uint8)
judge(
    claimed_at_home,
    ((*small, [1, 3]), 0.5, "the background has four pixels here; two carry class 1 or 3."),
    ((*small, [3]), 0.25, "only classes of the ground count, and 255 is no background."),
)

# %% [markdown]
# **5. An experiment.** Can you cause the expected disease? Make the ground the stronger evidence:
# small objects, always at home. Write your guess down, then train a network with
#
# ```
# wsfcn train lite_scenes/baseline \
#     --data.scenes.co-occurrence 1 --data.scenes.object-size 0.2 0.35
# ```
#
# and put it in place of a network of section 2.6. And what does one scene in ten away from home
# (0.9 instead of 1) change?
#
# ## Read on
# * Wang, Zhang, Zhang, Tang: *Coupling Global Context and Local Contents for Weakly-Supervised
#   Semantic Segmentation*, IEEE TNNLS 2023. Section III-B, Figure 3, Tables I and II.
# * Luo, Li, Urtasun, Zemel: *Understanding the Effective Receptive Field in Deep Convolutional
#   Neural Networks*, NeurIPS 2016.
# * Next: [03_sf2_semantic_flow](03_sf2_semantic_flow.ipynb), what the low feature level adds.
