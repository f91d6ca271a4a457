# %% [markdown]
# # 5 · From image labels to masks: the two phases of WS-FCN's training
#
# A segmentation network that is trained without a single mask: it hears only "there is a cat in
# this picture" and has to find out which pixels are the cat. In this notebook you watch it learn.
#
# **Afterwards you can**
# * say what each of the two losses asks of the masks, and why the second one has to wait for the
#   first;
# * build a pseudo label, the mask that the network makes for itself, step by step, and say which
#   pixels it leaves out;
# * read training curves of a weakly-supervised network, and a score together with its protocol.
#
# **Before**: `01_cams` shows why the maps of a plain classifier find half an object.
#
# | profile | what it is for | time on 2 CPU cores |
# | --- | --- | --- |
# | `smoke` | testing: a handful of steps, everything runs, nothing is learned | 20 s |
# | `laptop` | reading: the training that `make course` has done is read back | 1 minute |
#
# Where `make course` has not run yet, `laptop` trains first: minutes more, with curves that move
# while you wait. A training that was cut off goes on where it was.

# %% tags=["parameters"]
# schema: wsfcn.study.parameters.Training
profile = "smoke"  # how much work: smoke, laptop or paper
seed = 0  # seed of everything random
epochs = None  # passes over the data; None: recipe's
warmup_epochs = None  # first epochs, no mask loss
train = None  # training scenes; None: recipe's
val = None  # validation scenes; None: recipe's
shown = 3  # scenes of the filmstrip
scored = 4  # scenes that every protocol is tried on

# %%
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from wsfcn import build_model, data
from wsfcn.study.trained import film, recipe_of, trained

given = {
    "train.epochs": epochs,
    "train.warmup_epochs": warmup_epochs,
    "data.train": train,
    "data.val": val,
}
recipe = recipe_of(profile, seed).change({k: v for k, v in given.items() if v is not None})
train_set, val_set = data.build(recipe.data)

# %% [markdown]
# ## 5.1 What is the network told?
#
# In *fully* supervised segmentation a person paints the class of every pixel, which takes minutes
# an image. Here a person only lists the classes that occur, a matter of seconds: these
# **image-level labels** are a vector $t \in \{0, 1\}^K$, one entry for each of the $K = 20$
# classes of PASCAL VOC. The images are *emoji scenes*: drawn objects on photographs. We know their
# exact masks because we painted the scenes ourselves, but training never sees them. They serve to
# score, and to look behind the curtain.

# %%
from wsfcn.show.training import labelled_scenes

labelled_scenes([train_set[i] for i in range(12)], train_set.classes)

# %% [markdown]
# **Notice** what the labels keep quiet about: how many objects there are, how large, and where. A
# name under a picture is all.
#
# All choices of a training are one **recipe**, a frozen settings object. The lines that matter
# today:

# %%
t, w = recipe.train, recipe.weak
pd.DataFrame(
    {
        "scenes to train on, to score on": f"{len(train_set):,}, {len(val_set):,}",
        "epochs (passes over the scenes)": t.epochs,
        "of these warm-up": t.warmup_epochs,
        "images in a batch": t.batch_size,
        "base learning rate, SGD with momentum": f"{t.learning_rate:g}, {t.momentum:g}",
        "size penalty: power p, floor λ": f"{w.focal_power:g}, {w.focal_floor:g}",
        "refinement (PAMR): steps; distances of neighbours": (
            f"{w.pamr_iterations}; {', '.join(map(str, w.pamr_dilations))}"
        ),
        "thresholds: background, classes, least": (
            f"{w.background_factor:g}, {w.foreground_factor:g}, {w.floor:g}"
        ),
    }.items(),
    columns=["setting", "value"],
).set_index("setting").rename_axis(None)

# %% [markdown]
# **One network, several speeds.** The *backbone* has already learned to see on ImageNet; the
# paper's new parts (the context module FCA, the fusion SF2, the decoder) start from noise. So the
# optimiser gets groups: new weights learn faster than pretrained ones (in the paper 20 times),
# biases twice as fast as their weights and without *weight decay* (the pull towards zero). What is
# frozen does not appear: in the paper the backbone's first stages and all its batch norms, in this
# recipe the whole backbone, so that two cores suffice.

# %%
from wsfcn.show.training import group_table
from wsfcn.train import parameter_groups

group_table(parameter_groups(build_model(recipe), recipe.train), recipe.train)

# %% [markdown]
# ## 5.2 Train
#
# The loop is short enough to read from top to bottom: `wsfcn/train.py`. Each batch goes forward
# once; the **classification loss** compares the network's class scores with the image labels.
# After the warm-up a second loss, the **mask loss**, compares its masks with pseudo labels made
# from those very masks. The monitor below follows: curves, and some scenes that the network is
# never trained on, with the masks that it would draw after each epoch (move the slider). *Stop*
# ends the training after the step at hand, *Resume* takes it up again. (What is scored and drawn is
# the running mean of the weights over the last steps: it wavers less than the weights themselves.)

# %%
from functools import partial

from wsfcn.show.monitor import Monitor

training, masks_so_far = partial(trained, recipe), partial(film, recipe)
monitor = Monitor(training, masks_so_far, recipe.train, train_set.classes)
result = monitor.run()
network = result.model

# %% [markdown]
# ## 5.3 Phase one: what can a classification loss teach about masks?
#
# The network ends in one map of *logits* $z_c$ for each class, and a background map whose logit is
# **constantly 1**. A softmax over background and classes at each pixel $i$ gives the masks:
#
# $$m_{c,i} = \frac{e^{z_{c,i}}}{e^{1} + \sum_{k} e^{z_{k,i}}}$$
#
# But the labels are one number per image and class, so each map has to become one **score** $y_c$:
#
# $$y_c = \frac{\sum_i m_{c,i} z_{c,i}}{1 + \sum_i m_{c,i}} + (1 - \mu_c)^p \log(\lambda + \mu_c)$$
#
# The first term is *normalised global weighted pooling* (nGWP): the mean logit, taken **inside the
# mask**. The second is the *focal size penalty*: $\mu_c$ is the mask's mean value, its size as a
# share of the image. Then $\sigma(y_c) = 1/(1+e^{-y_c})$ is read as the probability that the class
# is in the image, and the loss is the usual one of a classifier with several right answers, $t_c$
# being 1 for a class in the labels and 0 otherwise:
#
# $$L_{cls} = -\frac{1}{K} \sum_c (t_c \log \sigma(y_c) + (1 - t_c) \log(1 - \sigma(y_c)))$$
#
# To see what that rewards, take a class that is sure of itself: logit 6 inside its mask, -10
# outside. How does its score depend on the size of the mask?

# %%
from wsfcn.weak import ngwp_scores


def scores_of(share):
    """Average pooling, nGWP alone, and the network's score for a mask of this size."""
    logits = torch.full((1, 2, 64, 64), -10.0)
    logits[:, 0] = 1  # the background
    logits[0, 1].view(-1)[: round(share * 64 * 64)] = 6
    masks = logits.softmax(1)
    z, m = logits[0, 1], masks[0, 1]
    inside = (m * z).sum() / (1 + m.sum())
    score = ngwp_scores(logits, masks, recipe.weak.focal_power, recipe.weak.focal_floor)
    return z.mean(), inside, score[0, 0]


sizes = np.unique(np.geomspace(4, 4096, 61).round()) / 4096  # from 4 pixels to all of them
average, inside, score = np.array([scores_of(share) for share in sizes]).T

# %%
from wsfcn.show.training import pooling

z = torch.linspace(-4, 8, 121)
one = torch.ones_like(z)
shares = {
    "sigmoid: no competition": z.sigmoid(),
    "softmax against the background (logit 1)": torch.stack([one, z]).softmax(0)[1],
    "... and against a rival with logit 3": torch.stack([one, z, 3 * one]).softmax(0)[1],
}
scores = {"average pooling": average, "nGWP alone": inside, "nGWP with size penalty": score}
pooling(sizes, scores, z, shares)

# %% [markdown]
# **Notice, on the left**, where each step to the right is a mask ten times as large. *Average
# pooling* pays for every further pixel until the mask smears over the whole image. *nGWP alone*
# hardly minds: a few dozen pixels earn as much as a whole cat, so a network would find the nose
# and stop, the half object of `01_cams`. The *penalty*, the shaded gap, makes small masks
# expensive, up to $\log \lambda \approx -4.6$ for an empty one, and fades out once a mask has a
# decent size. It says *claim something* without saying *claim everything*.
#
# **And on the right.** Who stops a mask from growing? With a *sigmoid* each class decides alone,
# and two classes can both own a pixel. In a *softmax* the shares of a pixel sum to 1: whoever
# wants it must beat the background, whose logit cannot move, and all rivals. A class that is
# **not** in the image is pushed down by the loss, so what is left at its pixels goes back to the
# background. This is how a network that was never shown any background learns one.

# %% [markdown]
# ## 5.4 Phase two: how does a network mark its own homework?
#
# After the warm-up the masks are roughly in place, but blurred and leaky. Phase two turns them
# into **pseudo labels**, label maps that are good enough to train on, and treats these as if a
# person had painted them. We do by hand, for some training scenes, what `wsfcn.train.losses` does
# for each batch. (A training step differs in two ways: the random gate between the two streams is
# switched on, and, to save time, this recipe's labels have half the resolution.)

# %%
from wsfcn.data.transforms import to_tensor
from wsfcn.weak import PAMR, gate_open, pseudo_labels, refine

samples = [train_set[i] for i in range(min(96, len(train_set)))]
images = torch.stack([to_tensor(s.image) for s in samples])
labels = torch.from_numpy(np.stack([s.labels for s in samples]))
with torch.inference_mode():
    output = network(network.normalise(images))

pamr = PAMR(w.pamr_iterations, w.pamr_dilations)
refined = refine(pamr, images, output.probabilities, labels)
cuts = {"background_factor": w.background_factor, "floor": w.floor}
pseudo = pseudo_labels(refined, labels, output.size, foreground_factor=w.foreground_factor, **cuts)
is_open = gate_open(pseudo, labels).numpy()

# %% [markdown]
# **Refine, then claim.** PAMR, *pixel-adaptive mask refinement*, replaces each pixel's mask value
# by an average over neighbours near and far that have a similar **colour**, ten times over;
# `04_pamr_refinement` takes it apart. Then each class claims the pixels where its mask is above a
# threshold: a share of its own maximum in this image (0.7 for the background, 0.6 for a class),
# but at least 0.2. Classes that are not in the image labels may not claim anything: this is where
# the labels come in a second time.

# %%
from wsfcn.model.layers import resize
from wsfcn.show.pseudo import refinement

two_classes = labels.sum(1).numpy() == 2
example = int(np.argmax(2 * is_open + two_classes))  # an open gate, and two classes if there are
channels = [0, *(np.flatnonzero(labels[example]) + 1)]
known = ("background", *train_set.classes)
names = [known[c] for c in channels]

masks = resize(refined[[example]], output.size)[0, channels]
factors = torch.tensor([w.background_factor] + [w.foreground_factor] * (len(channels) - 1))
thresholds = (factors * masks.amax((1, 2))).clamp(min=w.floor)
claimed = masks > thresholds[:, None, None]
steps = {
    "softmax mask": output.probabilities[example, channels].numpy(),
    "after PAMR": refined[example, channels].numpy(),
    "claimed pixels": claimed.numpy(),
}
refinement(samples[example].image, names, steps)

# %% [markdown]
# **Notice** how PAMR pulls the blurred masks towards edges of colour in the scene, and fills what
# has one colour. It knows nothing of objects: where an object looks like its ground, it leaks, and
# inside an object with many colours it may dig holes.
#
# **From claims to a loss.** A pixel that exactly one class claims gets that class. Claimed by
# *nobody* or by *several*, it gets the label 255, "not sure", and is left out. The mask loss is
# then a cross-entropy, the everyday loss of segmentation, times a weight for each class:
#
# $$w_c = \frac{n - n_c}{1 + n} \qquad L_{mask} = \frac{1}{H W} \sum_i w_{g_i} CE(z_i, g_i)$$
#
# $n_c$ of the $n$ labelled pixels have class $c$, and $g_i$ is the pseudo label of pixel $i$.
# Small things weigh more, so that a bird is not drowned by its sky. Because the sum is divided by
# *all* pixels, an image of which little is sure says little.

# %%
from wsfcn.show.pseudo import lesson
from wsfcn.weak import mask_loss

target = pseudo[[example]].long()
logits = resize(output.logits[[example]], output.size)
entropy = F.cross_entropy(logits, target, ignore_index=255, reduction="none")[0]
counts = torch.stack([(target == c).sum() for c in channels])
weights = (counts.sum() - counts) / (1 + counts.sum())
by_pixel = entropy * sum(v * (target[0] == c) for c, v in zip(channels, weights, strict=True))
if is_open[example]:  # the same number, made by hand
    whole = mask_loss(logits, pseudo[[example]], labels[[example]])
    torch.testing.assert_close(by_pixel.mean(), whole[0])
lesson(
    samples[example].image,
    claimed.sum(0).numpy(),
    pseudo[example].numpy(),
    by_pixel.numpy(),
    channels,
    dict(zip(names, weights.tolist(), strict=True)),
    samples[example].mask,
)

# %% [markdown]
# **Notice** where the loss lives: at outlines and in specks, where PAMR has moved a border and the
# network has not followed. Deep inside an object both agree and there is nothing to learn. White,
# where nobody is sure, teaches nothing: better no label than a wrong one.
#
# **Who may teach?** One more guard, the **batch gate**. An image counts only if its pseudo label
# shows *every* class of its image labels *and* some background. Otherwise the missing class's own
# pixels, labelled background or as a neighbour, would teach the network to paint over just what it
# finds hard.

# %%
from wsfcn.show.pseudo import gate_wall


def verdict(index):
    """What the gate says of a scene: open, or which classes its pseudo label has lost."""
    wanted = {0, *(np.flatnonzero(labels[index]) + 1)}
    lost = wanted - set(pseudo[index].unique().tolist())
    return "lost: " + ", ".join(known[c] for c in sorted(lost)) if lost else "open"


chosen = [*np.flatnonzero(is_open)[:3], *np.flatnonzero(~is_open)[:3]]
gate_wall(
    np.stack([samples[i].image for i in chosen]),
    pseudo[chosen].numpy(),
    [verdict(i) for i in chosen],
)

# %% [markdown]
# **Notice** what a shut gate means: the lost class has no pixel above the threshold that it claims
# alone. Often it is small, half hidden, or much like another class; sometimes the network simply
# has not learned it yet. The gate does not help such a class. It only keeps the damage away.
#
# **How strict should a threshold be?** Here we peek at the exact masks. *Precision* is the share
# of labels that are right, *coverage* the share of pixels that get one; both count all pixels, of
# which most are background (`04_pamr_refinement`, section 4.7, counts those of objects). Each
# point is one threshold factor for the classes; the ring marks the recipe's.

# %%
from wsfcn.show.pseudo import trade_off

strictness = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
unrefined = refine(PAMR(iterations=0), images, output.probabilities, labels)
curves_by_step = {
    name: [
        pseudo_labels(maps, labels, output.size, foreground_factor=f, **cuts).numpy()
        for f in strictness
    ]
    for name, maps in {"softmax masks": unrefined, "after PAMR": refined}.items()
}
trade_off(strictness, curves_by_step, np.stack([s.mask for s in samples]), w.foreground_factor)

# %% [markdown]
# **Notice** that one axis is bought with the other. Higher and further right is better: at the
# recipe's factor, compare the two lines to see what PAMR is worth.
#
# ## 5.5 What happens to the masks over the epochs?
#
# After each epoch the network has drawn the same validation scenes, which it never trains on.
# Below each mask is its **mIoU**: for each class, the pixels that mask and truth share, divided by
# the pixels that either has (*intersection over union*), averaged over the classes; 100 is
# perfect.

# %%
from wsfcn.show.training import filmstrip

shots = film(recipe)
filmstrip(
    shots.images,
    shots.masks,
    shots.frames,
    recipe.train.warmup_epochs,
    classes=train_set.classes,
    rows=shown,
)

# %% [markdown]
# **Notice** two different kinds of progress. Left of the dashed line the network finds out *what*
# and roughly *where*: blobs appear, change their class, spread or vanish. Right of it the blobs
# get *outlines*: PAMR knows edges, and the mask loss carries them into the network. Look also for
# a mistake that only gets sharper: these scenes are new to the network, and no label corrects the
# class that it gives to an object here.

# %% [markdown]
# ## 5.6 What do the curves tell?

# %%
from wsfcn.show.curves import curves

curves(result.rows, recipe.train.warmup_epochs)

# %% [markdown]
# **Notice**
# * *Losses.* The mask loss starts when the warm-up ends. From there on two teachers pull at one
#   network, so the classification loss may rise a little for a while. A falling mask loss alone
#   proves nothing: the network is compared with its own masks, and a network that is wrong with
#   conviction has a small one.
# * *Batch gate.* The share of images that may teach. If it stays near zero, the warm-up was too
#   short: there were no masks worth copying yet. It grows as the masks get better, and more images
#   join the lesson.
# * *Masks.* Only this panel has seen the truth, and only to measure. *Pixel accuracy* is soon high,
#   because most pixels are background; mIoU counts a bird as much as the sky, and that is why
#   papers report it.

# %% [markdown]
# ## 5.7 How good is it, and under which protocol?
#
# A **protocol** says all that happens between a photo and its label map: at which sizes the
# network looks, whether it also looks at the mirror image and averages, which classes are allowed,
# what counts as background. This recipe's:

# %%
from wsfcn.show.training import per_class

print(result.score.protocol.describe())
per_class(result.score)

# %%
from IPython.display import Markdown

ranked = pd.Series(result.score.per_class).dropna().drop("background").sort_values()
Markdown(
    "**Notice** that the mean hides a wide range: best "
    + ", ".join(f"{name} {100 * value:.0f} %" for name, value in ranked[:-4:-1].items())
    + ", worst "
    + ", ".join(f"{name} {100 * value:.0f} %" for name, value in ranked[:3].items())
    + ". What do the best have in common, what the worst? `07_failure_cases` sorts them by cause."
)

# %% [markdown]
# **One network, four scores.** Nothing is trained below; only the protocol changes, on the first
# `scored` validation scenes. The paper does the same in its Table III. *Flip* averages with the
# mirror image, *four scales* with the image at 1, 0.5, 1.5 and 2 times its size. *Labels given*
# tells the network at test time which classes are in the image. So few scenes give a rough mIoU,
# but the four are scored on the same ones, so their differences tell.

# %%
from wsfcn.evaluate import evaluate

own = result.score.protocol
four = (1.0, 0.5, 1.5, 2.0)
protocols = {
    "no flip": own.change({"name": "no flip", "flip": False}),
    "flip": own.change({"name": "flip", "flip": True}),
    "4 scales + flip": own.change({"name": "four", "flip": True, "scales": four}),
    "flip, labels given": own.change({"name": "given", "flip": True, "image_labels": True}),
}
ours = {
    name: 100 * evaluate(network, val_set, protocol, limit=scored, progress=False).mean_iou
    for name, protocol in protocols.items()
}

# %%
from wsfcn.show.training import protocol_gains

paper = {"no flip": 59.92, "flip": 60.68, "4 scales": 61.13, "4 scales + flip": 61.57}
protocol_gains(ours, paper)

# %% [markdown]
# **Notice** that the two sides cannot be compared in height: emoji scenes of 128 pixels and a
# small backbone here, VOC photographs and a network of 147 million parameters there. Only the
# *gains* are drawn to one scale. A mirror image usually helps a little. Four scales help on VOC,
# where the same object comes in many sizes. Do they here?
#
# And notice the trap: between the worst and the best protocol lie as many points as between many a
# pair of methods in a results table. The paper's Table I even calls its 60.68 "single scale",
# which by Table III is single scale *with flip*. **A score without its protocol means nothing**,
# and a table must never mix two.

# %%
from wsfcn.study.record import record

steps_logged = [row for row in result.rows if "classification_loss" in row]
record("first_classification_loss", round(steps_logged[0]["classification_loss"], 4))
record("last_classification_loss", round(steps_logged[-1]["classification_loss"], 4))
record("mask_loss", round(steps_logged[-1]["mask_loss"], 4))
record("gate_share", round(steps_logged[-1]["gate_open"], 4))
record("mean_iou", round(result.score.mean_iou, 4))
record("pixel_accuracy", round(result.score.pixel_accuracy, 4))
record("protocol", result.score.protocol.describe())
record("mean_iou_by_protocol", {name: round(value, 2) for name, value in ours.items()})

# %% [markdown]
# ## Recap
#
# * Image labels become masks because a class's score is pooled **inside its own mask** and small
#   masks are punished, while a softmax with a constant background keeps the masks from spreading.
# * The warm-up finds what and where. Then the network's masks, refined by colour, thresholded, and
#   guarded by the gate, become pseudo labels for an ordinary segmentation loss, which adds the
#   outlines.
# * Pseudo labels trade precision for coverage; "not sure" is a good answer.
# * A score needs its protocol beside it.
#
# In the paper: section III-D and Table III of *WS-FCN* ([arXiv
# 2304.09059](https://arxiv.org/abs/2304.09059)). The two phases come from its baseline, Araslanov
# and Roth, *Single-stage semantic segmentation from image labels* ([CVPR
# 2020](https://arxiv.org/abs/2005.08104)).
#
# | protocol on VOC 2012 val | paper, Table III |
# | :-- | --: |
# | one scale, no flip | 59.92 |
# | one scale, flip | 60.68 |
# | four scales, no flip | 61.13 |
# | four scales, flip | 61.57 |
#
# ## Exercises
#
# Write your code in place of the dots and run the cell; the judge says what is wrong, but not how
# to mend it.
#
# **1. The price of being small.** Write the focal size penalty of section 5.3 for a mask that
# covers the share `size` of an image. At which size is a mask punished by half of what an empty one
# pays?

# %% tags=["exercise"]
from wsfcn.study.exercises import judge


def size_penalty(size, power, floor):
    """Share of the image, power and floor -> what is added to the score of the class."""
    # begin solution
    return (1 - size) ** power * np.log(floor + size)
    # end solution


def case(size, power, floor, hint):
    flat = torch.zeros(1, 2, 4, 4)  # logits of 0: the penalty is all there is to the score
    score = ngwp_scores(flat, torch.full_like(flat, size), power, floor)
    return (size, power, floor), score.item(), hint


judge(
    size_penalty,
    case(0.0, 3.0, 0.01, "An empty mask must get the logarithm of the floor."),
    case(1.0, 3.0, 0.01, "A mask that fills the image must not be punished."),
    case(0.1, 3.0, 0.01, "Wrong for a tenth of the image: compare with the formula above."),
    case(0.1, 1.0, 0.01, "Right for the power 3 alone: is it written into your code?"),
    case(0.1, 3.0, 0.2, "Right for the floor 0.01 alone: is it written into your code?"),
)

# %% [markdown]
# **2. The gate.** `pseudo` is one pseudo label as an array (H, W) with 0 for background, 1 to K
# for the classes and 255 for "not sure"; `labels` is the vector of K zeros and ones. May this
# image teach?


# %% tags=["exercise"]
def may_teach(pseudo, labels):
    """A pseudo label (H, W) and image labels (K,) -> whether the gate is open."""
    # begin solution
    present = np.setdiff1d(pseudo, [255])
    return len(present) == labels.sum() + 1
    # end solution


def case(pixels, labels, hint):
    pseudo, given = np.array([pixels], np.uint8), np.array(labels, np.float32)
    is_open = gate_open(torch.from_numpy(pseudo)[None], torch.from_numpy(given)[None])
    return (pseudo, given), bool(is_open), hint


judge(
    may_teach,
    case([0, 0, 2, 2], [0, 1, 0], "Background and class are there, yet it is shut."),
    case([0, 0, 0, 0], [0, 1, 0], "A class of the image labels is lost, yet it opens."),
    case([2, 2, 2, 2], [0, 1, 0], "The background is lost, yet it opens."),
    case([0, 2, 2, 255], [0, 1, 1], "255 means that nothing is known: no class."),
    case([0, 2, 3, 255], [0, 1, 1], "Pixels with 255 beside all classes do no harm."),
)

# %% [markdown]
# **3. Precision and coverage.** Return both for a pseudo label and the exact mask, arrays (H, W).
# The exact mask has 255 too: on the soft rim of an object nobody can say who is right, so the
# precision leaves those pixels out. Then use it on `pseudo` above: how do the images with a shut
# gate compare with the others?


# %% tags=["exercise"]
def precision_and_coverage(pseudo, exact):
    """Pseudo label and exact mask, (H, W) -> (share that is right, share that has a label)."""
    # begin solution
    labelled = pseudo != 255
    judged = labelled & (exact != 255)
    return (pseudo == exact)[judged].mean(), labelled.mean()
    # end solution


def case(pseudo, exact, precision, coverage, hint):
    return (np.array([pseudo]), np.array([exact])), (precision, coverage), hint


judge(
    precision_and_coverage,
    case([0, 1], [0, 1], 1, 1, "Labels everywhere, all of them right: both are 1."),
    case([0, 1], [1, 1], 0.5, 1, "One label of two is wrong: half the precision."),
    case([0, 1, 255, 255], [0, 1, 1, 0], 1, 0.5, "No label lowers the coverage, and it alone."),
    case([0, 1, 1, 255], [0, 1, 255, 255], 1, 0.75, "Where the exact mask is 255 nobody knows."),
)

# %% [markdown]
# **4. mIoU by hand.** `confusion[a, b]` counts the pixels of true class `a` that were predicted as
# `b`. Return the mean IoU over the classes that occur, in the truth or in the prediction.
# `np.array(result.score.confusion)` is ours; does your function find `result.score.mean_iou`?

# %% tags=["exercise"]
from wsfcn.evaluate import ConfusionMatrix


def mean_iou(confusion):
    """Counts (N, N), rows are the truth -> the mean IoU of the classes that occur."""
    # begin solution
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.mean(hits[union > 0] / union[union > 0])
    # end solution


def case(rows, hint):
    counts = ConfusionMatrix(len(rows))
    counts.matrix += np.array(rows)
    return np.array(rows), counts.mean_iou, hint


judge(
    mean_iou,
    case([[8, 0], [0, 2]], "Without a mistake it is 1, however large the classes are."),
    case([[6, 2], [1, 1]], "The union of a class is its row and its column, hits once."),
    case([[6, 2, 0], [1, 1, 0], [0, 0, 0]], "A class that is nowhere has no IoU."),
    case([[6, 2, 1], [1, 1, 0], [0, 0, 0]], "A class predicted by mistake has IoU 0."),
)

# %% [markdown]
# **5. An experiment.** What do you expect without any warm-up? And with nothing but warm-up? Write
# your guess down first, then run `wsfcn run 05_training --profile laptop -p warmup_epochs 0 --out
# runs/no_warmup`, compare the gate curve and the filmstrip, and try the number of epochs as
# `warmup_epochs` next.
