# %% [markdown]
# # 1 · Why a CAM finds half an object
#
# A network that was only ever told *"there is a cat in this photo"* can show you roughly
# **where** the cat is. This notebook looks at how good "roughly" is, and at what is missing.
# Closing that gap is what the rest of the course is about.
#
# **Afterwards you will be able to**
#
# * draw a class activation map (CAM) of any classifier that ends in global average pooling, and
#   say what it shows and what it does not;
# * name the two faults of a thresholded CAM, *object incompleteness* and *background
#   incompleteness*, and measure both;
# * say why no threshold repairs both faults, and how much the network WS-FCN does, on drawn
#   scenes and on photos, yours included.
#
# **You need** one course in deep learning: convolutions, classification, training by gradient
# descent. Every other term is explained where it first appears.
#
# | profile | what it is for | time on 2 CPU cores |
# | --- | --- | --- |
# | `smoke` | testing: few scenes, and a CAM classifier that saw few | 20 s |
# | `laptop` | reading: 120 scenes; the CAM classifier saw all training scenes | 30 s |
#
# In `laptop` the first run takes a minute more: it trains the CAM classifier, which is then kept.

# %% tags=["parameters"]
# schema: wsfcn.study.parameters.Cams
profile = "smoke"  # how much work: smoke, laptop or paper
seed = 0  # seed of everything random
photo = ""  # a photo of yours; empty: those of scikit-image
model = "lite-scenes"  # trained network: a name or .safetensors
photo_model = "lite-voc"  # network for photos: the same
scenes = 8  # scenes that are scored, at most all there
shown = 3  # scenes that are drawn

# %% [markdown]
# `profile` chooses the amount of work; `photo` may name a photo of your own. Everything runs
# without a network connection.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import skimage
import torch
from IPython.display import Markdown
from PIL import Image

from wsfcn.data.images import read_image
from wsfcn.data.transforms import to_tensor
from wsfcn.show import cams as draw
from wsfcn.study.record import record


def percent(share):
    return f"{100 * share:.1f} %"


# %% [markdown]
# ## 1.1 Where does a classifier look?
#
# **Question.** The classifier in this section is an EfficientNet-Lite0, a small convolutional
# network trained on *ImageNet*: 1.2 million photos, each with one of 1,000 class names. Nobody
# ever showed it the outline of an object. What does it know about places?
#
# First, what it says about a few photos that come with scikit-image.

# %%
files = {"cat": "chelsea.png", "motorbike": "motorcycle_left.png", "coffee": "coffee.png"}
paths = {name: Path(skimage.__file__).parent / "data" / file for name, file in files.items()}
if photo:
    paths = {"cat": paths["cat"], "your photo": photo}


def small(path, longest=320):
    """The photo, shrunk so that its longer side has `longest` pixels."""
    picture = Image.fromarray(read_image(path))
    picture.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return np.asarray(picture)


photos = {name: small(path) for name, path in paths.items()}

# %% [markdown]
# The function below runs the classifier. Besides the probabilities it keeps the **feature map**:
# the output of the last convolution, 1,280 numbers (*channels*) at each cell of a coarse grid.
#
# The **stride** of a network is how many pixels of the photo one cell of that grid stands for
# along each side. This one was trained at stride 32. A known trick makes the grid finer without
# training: leave out the last steps of subsampling, and spread the kernels that follow
# (*dilation*), so that each still looks at the same places of the photo as before.

# %%
from wsfcn.model.efficientnet import EfficientNetLite
from wsfcn.weights import imagenet_efficientnet_lite, load_state

weights = imagenet_efficientnet_lite("0")


def classify(network, image):
    """Probabilities (1000,) and feature map (1280, h, w) of an image."""
    pixels = (to_tensor(image)[None] - network.mean[0]) / network.std[0]
    with torch.inference_mode():
        logits, features = network.classify(pixels)
    return logits[0].softmax(0).numpy(), features[0]


strides, seen = (32, 16, 8), {}
for stride in strides:
    network = EfficientNetLite("0", stride=stride, classifier=True).eval()
    load_state(network, weights, "ImageNet weights")
    for name, image in photos.items():
        seen[name, stride] = classify(network, image)

# %%
draw.top_classes(photos, {name: seen[name, 32][0] for name in photos})

# %% [markdown]
# **What to notice.** The name may be too fine (ImageNet tells Egyptian cats from tabbies, and
# mopeds from motor scooters), and several neighbouring names share the probability. The *kind*
# of thing is what we shall rely on.
#
# ### From a name to a map
# The classifier ends in two steps. **Global average pooling** takes the mean of each channel over
# the $h \times w$ cells. A linear layer then adds the means up, with one set of weights
# $w_{kc}$ for each class $k$. The sum is the **logit** $y_k$ of the class: the higher it is, the
# surer the classifier.
#
# $$ y_k = b_k + \sum_c w_{kc} \; \frac{1}{hw} \sum_{i,j} f_c(i,j)
#        = b_k + \frac{1}{hw} \sum_{i,j} \underbrace{\sum_c w_{kc}\, f_c(i,j)}_{M_k(i,j)} $$
#
# Both are sums, so their order does not matter. On the right the logit has become the *mean of a
# map*: $M_k(i,j)$ is how much the cell $(i,j)$ speaks for class $k$. That is the **class
# activation map**, CAM for short (Zhou et al., 2016, equation 2). It costs nothing: every number
# in it was computed on the way to the logit. To compare maps we set negative values to 0 and
# divide by the maximum.

# %%
from wsfcn.weak.cam import class_activation_maps


def cam(name, stride):
    """The CAM of the photo's most probable class, (h, w) in [0, 1]."""
    features = seen[name, stride][1][None]
    of_class = weights["_fc.weight"][[best[name]]]
    return class_activation_maps(features, of_class)[0, 0].numpy()


best = {name: int(seen[name, 32][0].argmax()) for name in photos}
maps = {f"stride {s}": {name: cam(name, s) for name in photos} for s in strides}
draw.heat_grid(photos, maps, {name: draw.imagenet_name(best[name]) for name in photos})

# %% [markdown]
# **What to notice.** Bright cells speak for the class; the white line is at half of the maximum.
# Follow one photo from left to right. The grid gets finer, the blob gets a sharper edge, but it
# stays where it was. The next table puts numbers to this: the share of the photo inside the white
# line, and the correlation of the coarsest with the finest map.
#
# On scikit-image's photos: of the motorbike the engine carries the evidence; wheels, saddle and
# handlebar stay dark, although they are motorbike, too. The espresso glows beyond its cup. Keep
# both in mind.


# %%
def same_grid(values):
    """A map on a common grid, so that strides can be compared cell by cell."""
    return np.asarray(Image.fromarray(values).resize((128, 96), Image.Resampling.BILINEAR))


rows, agreement = {}, {}
for name in photos:
    coarse, fine = (same_grid(maps[f"stride {s}"][name]) for s in (32, 8))
    agreement[name] = np.corrcoef(coarse.flat, fine.flat)[0, 1]
    same = len({int(seen[name, s][0].argmax()) for s in strides}) == 1
    rows[name] = {
        "most probable class": "same at all strides" if same else "changes with the stride",
        "above half, stride 32": percent((coarse > 0.5).mean()),
        "above half, stride 8": percent((fine > 0.5).mean()),
        "correlation of the two maps": f"{agreement[name]:.2f}",
    }
pd.DataFrame(rows).T

# %% [markdown]
# A correlation near 1 means that the two maps rise and fall together. So a finer grid draws the
# same belief more sharply; it does not change *what* the classifier believes in. Nor should it:
# to tell a cat, the face is enough. That a CAM lights up less than the whole animal is not a
# fault of its resolution. It is what the network was asked for.

# %% [markdown]
# ## 1.2 How much of the object, how much of the background?
#
# **Question.** Pictures can flatter. How large is the part that a CAM misses?
#
# To measure this we need the right answer for every pixel: an **exact mask**. Drawn scenes have
# one for free. Each of ours puts one or two emoji (OpenMoji artwork) on a photo or a painted
# ground, in 20 classes, those of the data set PASCAL VOC. The masks serve for *scoring only*.
# Training sees the scene and its **image labels**, the list of classes in it. Learning masks
# from such labels is called **weakly-supervised semantic segmentation**.

# %%
from wsfcn.data import build as build_data
from wsfcn.show.sheet import contact_sheet
from wsfcn.study.trained import recipe_of

recipe = recipe_of(profile, seed)
val = build_data(recipe.data)[1]
samples = [val[i] for i in range(min(scenes, len(val)))]
truth = np.stack([sample.mask for sample in samples])
labels = torch.stack([torch.from_numpy(sample.labels) for sample in samples])
contact_sheet(val, min(6, len(val)), title="Validation scenes, and what their exact masks say")

# %% [markdown]
# Above: scenes that no network here was trained on. Below each: its exact mask. White lines are
# pixels on the border, which belong to both sides and are not counted.
#
# Now a classifier for these 20 classes: the convolutions of the same pretrained network, at stride
# 8; their features are pooled, and one linear layer is trained on image labels. Its CAMs come as
# in section 1.1. Every pixel then goes to the class whose map is **strongest** there, if that
# strength is above a **threshold**; otherwise it is *background*. So that we judge the masks and
# not the guessing of classes, the image labels are given: maps of classes that are not in the
# scene are set to 0.

# %%
from wsfcn.model.layers import resize
from wsfcn.study.cam_floor import cam_floor

floor = cam_floor(recipe, progress=False)
pixels = torch.stack([to_tensor(sample.image) for sample in samples])
parts = [floor.maps(some) for some in pixels.split(16)]
cams, probabilities = (torch.cat(part) for part in zip(*parts, strict=True))


def strongest(kept):
    """For each pixel the strength of the strongest kept class, and its number, 1 to 20."""
    maps = (
        resize(m[None], truth.shape[1:], align_corners=False) for m in cams * kept[..., None, None]
    )
    found = [m.max(1) for m in maps]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found]) + 1


given, guessed = strongest(labels), strongest((probabilities > 0.5).float())


def cut(maps, threshold):
    """Label maps (n, H, W): the strongest class, 0 (background) where it is too weak."""
    strength, winner = maps
    return torch.where(strength > threshold, winner, 0).to(torch.uint8).numpy()


# %% [markdown]
# To score masks we count pixels. For one class, **IoU** (intersection over union) is the number
# of pixels where mask and truth agree on the class, divided by the number where at least one of
# them says it: 100 % for a perfect mask, 0 % for one beside the object. **mIoU** is its mean over
# the classes, background included. Two shares tell *how* a mask is wrong:
#
# * of all object pixels, the share that was **found**, that is, did not end as background;
# * of all background pixels, the share that was **claimed** by some object.

# %%
from wsfcn.evaluate import ConfusionMatrix
from wsfcn.study.cam_floor import THRESHOLDS


def score(masks):
    """mIoU, share of the object found, share of the background claimed (fractions)."""
    counts = ConfusionMatrix(len(val.classes) + 1)
    counts.update(masks, truth)
    background = counts.matrix[0]
    claimed = background[1:].sum() / background.sum()
    return counts.mean_iou, counts.foreground_recall, float(claimed)


names = ["mIoU", "object found", "background claimed"]
curve = pd.DataFrame([score(cut(given, t)) for t in THRESHOLDS], THRESHOLDS, names)
own = pd.Series([score(cut(guessed, t))[0] for t in THRESHOLDS], THRESHOLDS)
middle = float(curve["mIoU"].idxmax())
low, high = round(middle / 3, 2), round((1 + middle) / 2, 2)

# %%
three = {
    f"low threshold {low:g}": cut(given, low),
    f"best threshold {middle:g}": cut(given, middle),
    f"high threshold {high:g}": cut(given, high),
}
draw.verdict_grid(samples[:shown], given[0].numpy(), three)

# %% [markdown]
# **What to notice.** These are the first scenes of the set, not the nicest. Read a row from the
# low threshold to the high one.
#
# * **Purple** is background that an object has claimed. The paper calls this **background
#   incompleteness**: the mask of the background has holes. A low threshold lets the blob flow
#   over the object's edge, and to places that often come along with the object.
# * **Orange** is object that was missed: **object incompleteness**. A high threshold keeps the
#   few places that spoke loudest, and drops the rest of the object with the background.
#
# Dark is object that went to the wrong class of two. Purple can only shrink and orange can only
# grow from left to right. Is there a place where both are small?

# %%
import torch.nn.functional as F


def through_grid(mask, cells):
    """The exact mask as a CAM's grid would draw it: averaged over cells, enlarged, decided."""
    classes = torch.from_numpy(np.where(mask == 255, 0, mask)).long()
    shares = F.one_hot(classes, len(val.classes) + 1).permute(2, 0, 1)[None].float()
    fine = resize(F.adaptive_avg_pool2d(shares, cells), mask.shape, align_corners=False)
    return fine.argmax(1)[0].numpy().astype(np.uint8)


cells = tuple(cams.shape[-2:])
ceiling = score(np.stack([through_grid(mask, cells) for mask in truth]))[0]
quality = {"image labels given": curve["mIoU"].tolist(), "classes guessed": own.tolist()}
shares = curve["object found"].tolist(), curve["background claimed"].tolist()
draw.threshold_curves(THRESHOLDS, *shares, quality, middle, ceiling)

# %%
summary = pd.DataFrame([score(masks) for masks in three.values()], list(three), names)
summary.map(percent)

# %%
_, part, claimed = score(cut(given, middle))
Markdown(
    f"**What to notice.** The left picture is the whole dilemma: the two shares fall *together*. "
    f"At the best threshold, {middle:g}, a CAM finds {percent(part)} of the objects' area and "
    f"claims {percent(claimed)} of the background; any other threshold helps one at the cost of "
    "the other. "
    f"The coarse grid is not to blame: the exact masks, drawn on the same {cells[0]} by {cells[1]} "
    f"cells, would reach {percent(ceiling)} mIoU (dotted). The CAM reaches "
    f"{percent(curve['mIoU'].max())}. "
    f"And it was helped: the threshold was chosen by looking at the exact masks."
)

# %% [markdown]
# ### Why?
# Look at the formula once more. The loss sees only the logit, the *mean* of the map, and asks
# that it be high when the class is there. A very bright spot on a face does that as well as an
# even glow over the whole animal, so nothing pushes the map to cover the object. And nothing
# pushes it off the rails on which every train stands: they, too, help to tell. Both faults are in
# the *question*, "is it there?". Better masks need another question.

# %% [markdown]
# ## 1.3 What WS-FCN makes of the same labels
#
# **Question.** Can a network do better with the *same image labels* and nothing else?
#
# WS-FCN (Wang et al., 2023) predicts masks in one go and trains on them itself: its scores are
# pooled so that very small masks are punished, its masks are fitted to edges in the image (PAMR,
# notebook 4), and what is certain in them becomes the lesson for the next round (notebook 5).
# The network here comes with the package, trained on scenes like these; notebook 5 trains it.

# %%
import wsfcn
from wsfcn.predict import predict
from wsfcn.protocols import given_image_labels

network = wsfcn.load(model)
told = given_image_labels()
images = [sample.image for sample in samples]
ours = np.stack([result.labels for result in predict(network, images, told, labels.numpy())])


# %%
def per_scene(masks):
    """mIoU of each scene alone, over the classes in it or in its mask."""
    values = []
    for mask, exact in zip(masks, truth, strict=True):
        counts = ConfusionMatrix(len(val.classes) + 1)
        counts.update(mask, exact)
        values.append(counts.mean_iou)
    return np.array(values)


masks = {f"CAM at {middle:g}": cut(given, middle), "WS-FCN": ours}
scores = {method: per_scene(found) for method, found in masks.items()}
draw.mask_grid(samples[:shown], masks, scores, val.classes)

# %% [markdown]
# The same scenes as above. The number over a mask is its IoU in that scene, averaged over the
# classes there, background included. Now all scenes, and next to it the harder task in which the
# image labels are *not* given and each method has to guess the classes as well:

# %%
from wsfcn.evaluate import evaluate

alone = evaluate(network, val, limit=len(samples), progress=False)
table = pd.DataFrame(
    [
        [*score(masks[f"CAM at {middle:g}"]), float(own.max())],
        [*score(ours), alone.mean_iou],
    ],
    [f"CAM at {middle:g}", "WS-FCN"],
    [*names, "mIoU, classes guessed"],
)
wins = float((scores["WS-FCN"] > scores[f"CAM at {middle:g}"]).mean())
table.map(percent)

# %%
gain = 100 * (table.loc["WS-FCN"] - table.iloc[0])
Markdown(
    f"**What to notice.** With image labels given, WS-FCN's mIoU is {abs(gain['mIoU']):.1f} points "
    f"{'above' if gain['mIoU'] > 0 else 'below'} that of the CAM, over {len(samples)} scenes, and "
    f"higher in {wins:.0%} of them. It finds {percent(table.loc['WS-FCN', 'object found'])} of "
    f"the objects' area and claims {percent(table.loc['WS-FCN', 'background claimed'])} of the "
    "background.\n"
    f"\n*Protocols.* WS-FCN: {told.describe()}; classes guessed: {alone.protocol.describe()}. "
    f"CAM: scale 1, no flip, the threshold that is best on these very scenes; classes guessed: "
    f"those with a probability above 0.5, and their own best threshold; its training seed: {seed}."
)

# %% [markdown]
# A fair word for the CAM: its classifier trains one layer on fixed features. With the whole
# network trained, its maps would be others, though made from the same question.
#
# A number without its protocol means little. Read the first column beside the last one: the same
# maps, and only who names the classes is another. Published tables mix the two; the paper marks
# its own rows of the easier kind with §.
#
# ### In the paper
# Figure 2 of WS-FCN shows the two faults on photos, the way section 1.2 shows them on scenes. Its
# Table IV gives, for PASCAL VOC 2012 val, several scales and flips, no CRF (a method that moves
# mask edges to image edges): **61.57** mIoU with classes guessed, **64.02** (§) with image labels
# given. The numbers above come from other images and a far smaller network: they can be compared
# with one another, not with these.

# %% [markdown]
# ## 1.4 And on photos?
#
# **Question.** Drawn scenes are kind: flat colours, black outlines. What is left on real photos?
#
# The package carries a second network of the same kind, trained on photos of PASCAL VOC from
# their image labels. It knows six classes only; everything else should become background. Two of
# the photos of scikit-image show one of them, the coffee shows none. For each photo below: the
# class with the highest score, what in the classifier's features speaks for it (its CAM, as the
# gradient of the score gives it), the network's own mask of it, and the label map that
# `wsfcn.segment` returns. There is no exact mask to compare with: judge by eye.

# %%
from wsfcn.show.explorer import explore

on_photos = wsfcn.load(photo_model)
folder = Path(skimage.__file__).parent / "data"
more = {"your photo": photo} if photo else {"astronaut": folder / "astronaut.png"}
real = {"cat": paths["cat"], **more, "coffee": folder / files["coffee"]}
real = {name: small(path, 500) for name, path in real.items()}
state = explore(on_photos, real)
results = {name: wsfcn.segment(on_photos, image) for name, image in real.items()}


def of_best(picture):
    """Name of the class with the highest score, its CAM, its mask: (h, w) in 0..1."""
    k = int(picture.scores.argmax())
    return on_photos.classes[k], picture.maps["cam"].of(k + 1), picture.maps["gate"].of(k + 1)


looks = {picture.name: of_best(picture) for picture in state.pictures}
draw.photo_grid(results, looks)

# %%
rows = {
    name: {
        "class": kind,
        "its score": percent(results[name].scores[on_photos.classes.index(kind)]),
        "CAM above half": percent((same_grid(heat) > 0.5).mean()),
        "its share of the label map": percent(results[name].areas().get(kind, 0)),
    }
    for name, (kind, heat, _) in looks.items()
}
pd.DataFrame(rows).T

# %%
empty = [name for name, result in results.items() if not result.found]
said = f"left without a class: {', '.join(empty)}" if empty else "none was left without a class"
Markdown(
    f"**What to notice.** The network knows {', '.join(on_photos.classes)}. Of these "
    f"{len(real)} photos {said}. A CAM is divided by its own maximum, so it always glows "
    "somewhere, also where its class is not. A mask of WS-FCN has to win against the background "
    "pixel by pixel, and the class has to pass the filter. Does it cover the object, or again "
    "only what gives it away? Where does it run out over the edge?\n"
    f"\n*Protocol.* {next(iter(results.values())).protocol.describe()}; heat: one view, no flip."
)

# %% [markdown]
# Try a photo of your own: `wsfcn run 01_cams -p photo dog.jpg`, or from a shell
# `wsfcn segment dog.jpg`, which leaves picture, mask and areas. What the network was trained on,
# how well it does on photos with exact masks, and what not to expect of it: `docs/models.md`.
#
# ## 1.5 See for yourself
#
# Every stage between a picture and its mask, under your hand; the later ones are the subject of
# the next notebooks. Step through them with the buttons or the arrow keys, drag the line across
# the picture, move the threshold and watch the IoU.

# %%
from wsfcn.show.explorer import Explorer

Explorer(network, samples[:shown], cams=floor.maps, stage="cam")

# %% [markdown]
# **What to notice.** Choose one class at the stage *CAM* and lower the threshold: how much of the
# surroundings is claimed by the time the object is complete? Then do the same at the stage *Gate*,
# with WS-FCN's own masks. The little curve is the IoU at every threshold: the flatter, the surer
# the network is inside and outside, and the less it matters where you cut.
#
# The photos of section 1.4 with their network, in the same way. Without an exact mask there is no
# IoU; the masks are larger, so there is more to see of each stage.

# %%
Explorer(state, stage="cam")

# %% [markdown]
# The numbers of this run, kept with the executed notebook, so that runs can be compared:

# %%
record("cat_top1", draw.imagenet_name(best["cat"]))
record("stride_correlation", round(float(min(agreement.values())), 4))
record("cam_threshold", middle)
record("cam_grid_ceiling", round(ceiling, 4))
columns = ("mean_iou", "object_found", "background_claimed", "mean_iou_guessed")
for method, row in zip(("cam", "wsfcn"), table.to_numpy(), strict=True):
    record(method, {name: round(float(v), 4) for name, v in zip(columns, row, strict=True)})
areas = {name: result.areas() for name, result in results.items()}
record("photos", {n: {c: round(v, 4) for c, v in of.items()} for n, of in areas.items()})

# %% [markdown]
# ## Recap
# * A CAM is the classifier's own sum, before the mean over places is taken. It is free.
# * A finer stride sharpens it, and leaves its belief as it is.
# * Thresholds trade **object incompleteness** for **background incompleteness**; none cures both.
# * The cause is the question that training asks, not the grid.
# * WS-FCN asks another question, with the same labels. Notebook 5 opens up its training.
#
# ## Exercises
# Put your code in place of the dots and run the cell: the line below says whether it is right, or
# what is wrong.
#
# **1. A CAM of your own.** From the features of one image, `(C, h, w)`, and the weights of one
# class, `(C,)`, make the map, `(h, w)`: negative evidence cut off, the maximum 1. Which input
# has no maximum to divide by?

# %% tags=["exercise"]
from wsfcn.study.exercises import judge


def my_cam(features, weights):
    """Features (C, h, w) and one class's weights (C,) -> its map (h, w), from 0 to 1."""
    # begin solution
    evidence = torch.einsum("chw,c->hw", features, weights).clamp(min=0)
    most = evidence.max()
    return evidence / most if most > 0 else evidence
    # end solution


def case(seed, weights, hint):
    inputs = torch.rand(3, 4, 5, generator=torch.manual_seed(seed)), torch.tensor(weights)
    return inputs, class_activation_maps(inputs[0][None], inputs[1][None])[0, 0], hint


judge(
    my_cam,
    case(1, [2.0, 1.0, 0.3], "Which channel has which weight? And is the maximum 1?"),
    case(2, [1.5, -1.0, 0.5], "Evidence against a class, below 0, is cut off."),
    case(3, [-1.5, -2.0, -0.5], "No cell speaks for this class: its map is all 0, not NaN."),
)

# %% [markdown]
# **2. Back to the logit.** You are given a map of evidence *before* anything is cut off or
# divided, and the bias of the class. Which logit did the classifier give? Then think: by how much
# may one cell shrink if another grows, without the classifier noticing?


# %% tags=["exercise"]
def my_logit(evidence, bias):
    """Evidence (h, w) for a class, and its bias -> the logit."""
    # begin solution
    return evidence.mean() + bias
    # end solution


for_it, mixed = torch.tensor([[4.0, 1.0], [0.5, 2.5]]), torch.tensor([[4.0, -1.0], [0.5, -2.5]])
judge(
    my_logit,
    ((for_it, 0.0), 2.0, "What does global average pooling do to a sum over channels?"),
    ((for_it, 0.25), 2.25, "Nearly: a linear layer has a bias, too."),
    ((mixed, 0.25), 0.5, "Evidence against the class counts as well; only the CAM cuts it."),
)

# %% [markdown]
# **3. Two shares.** `found` and `truth` are label maps: 0 background, 1 to 20 classes, and in
# `truth` 255 for pixels that do not count. Return the share of the object that was found (as any
# object) and the share of the background that was claimed.


# %% tags=["exercise"]
def my_shares(found, truth):
    """Label maps (H, W) -> (share of the object found, share of the background claimed)."""
    # begin solution
    on_object = (truth > 0) & (truth < 255)
    return (found[on_object] > 0).mean(), (found[truth == 0] > 0).mean()
    # end solution


truth_map = np.array([[0, 0, 0, 0], [3, 3, 3, 3]])
found_map = np.array([[0, 0, 0, 3], [3, 3, 7, 0]])
border = np.array([[0, 0, 0, 0], [3, 3, 255, 255]])
judge(
    my_shares,
    ((truth_map, truth_map), (1, 0), "All is found, nothing claimed. The object comes first."),
    ((truth_map * 0, truth_map), (0, 0), "Nothing is found, and nothing is claimed."),
    ((found_map, truth_map), (3 / 4, 1 / 4), "Found is what is any object, be it another class."),
    ((found_map, border), (1, 1 / 4), "255 is neither object nor background: leave it out."),
)

# %% [markdown]
# **4. A threshold for each image.** `cam` is a map in 0..1, `object_mask` the exact mask as True
# and False. Return the best threshold for this one image, and its IoU. Then use it on the scenes
# above: how much would the CAM gain if each scene could choose? Does that cure the faults?

# %% tags=["exercise"]
from sklearn.metrics import jaccard_score  # another name for IoU


def my_threshold(cam, object_mask):
    """A map (H, W) and a mask (H, W) of True and False -> (best threshold, its IoU)."""

    # begin solution
    def iou(threshold):
        found = cam > threshold
        return (found & object_mask).sum() / (found | object_mask).sum()

    best = max(np.linspace(0, 0.99, 100), key=iou)
    return best, iou(best)
    # end solution


rows, columns = np.mgrid[:24, :24]
blob = np.exp(-(((rows - 12) / 8) ** 2) - ((columns - 10) / 8) ** 2)
box = (abs(rows - 12) < 7) & (abs(columns - 12) < 6)


def true_iou(level):
    return jaccard_score(box.flat, blob.flat > level)


most = max(map(true_iou, np.linspace(0, 0.99, 100)))
judge(
    my_threshold,
    ((blob, box), lambda a: abs(a[1] - true_iou(a[0])) < 0.01, "(threshold, the IoU it gives)?"),
    ((blob, box), lambda a: true_iou(a[0]) > most - 0.01, "Another threshold is better."),
)

# %% [markdown]
# **5. To think about.** Give `photo` a picture in which the object stands in unusual company: a
# boat on a trailer, a sheep on a road. Where does the map go? And which of the two faults would
# you expect to grow if *every* training scene with a boat had water in it?
#
# ## Read on
# * Zhou, Khosla, Lapedriza, Oliva, Torralba: *Learning Deep Features for Discriminative
#   Localization*, CVPR 2016. The class activation map.
# * Wang, Zhang, Zhang, Tang: *Coupling Global Context and Local Contents for Weakly-Supervised
#   Semantic Segmentation*, IEEE TNNLS 2023. WS-FCN; Figure 2 and Table IV.
# * Next: [02_fca_context](02_fca_context.ipynb), what a mask gains from looking around.
