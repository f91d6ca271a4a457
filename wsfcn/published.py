"""The authors' files: ImageNet WideResNet-38, trained WS-FCN, trained baseline, read and written.

Their names are mapped onto ours part by part; nothing is guessed from shapes.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from . import build
from .files import replacing
from .model.network import Network
from .recipes import Recipe, paper_coco, paper_voc, table1
from .settings import SettingsError
from .weights import COUNTER, WeightsError, load_state, read_pth, write_safetensors

# Declared by the released code but never called (branch norms of the FCA), and PAMR's constants.
UNUSED = re.compile(r"fca\.fca\d\.bn\.|_aff\.aff_(x|m|std)\.kernel$")

POOL = {"pool.project.0": "global_avg_pool.1", "pool.project.1": "global_avg_pool.2"}
EMBED = {"embed.0": "conv1", "embed.1": "bn1"}
STRIPS = {
    "column_first": "conv1_1",
    "column_second": "conv1_2",
    "row_first": "conv2_1",
    "row_second": "conv2_2",
}
MCLM = {
    **{f"strips.{i}.{a}": f"fca{i + 1}.{b}" for i in range(4) for a, b in STRIPS.items()},
    "attention.squeeze": "ca.sharedMLP.0",
    "attention.excite": "ca.sharedMLP.2",
    **POOL,
    **EMBED,
}
ASPP = {
    **{f"branches.{i}.0": f"aspp{i + 1}.atrous_conv" for i in range(4)},
    **{f"branches.{i}.1": f"aspp{i + 1}.bn" for i in range(4)},
    **POOL,
    **EMBED,
}
SF2 = {
    "align.reduce_high": "align1.down_h",
    "align.reduce_low": "align1.down_l",
    "align.flow": "align1.flow_make",
    **{f"streams.low{i}.conv": f"sf2.conv{i}h" for i in range(1, 5)},
    **{f"streams.low{i}.norm": f"sf2.bn{i}h" for i in range(1, 5)},
    **{f"streams.deep{i}.conv": f"sf2.conv{i}v" for i in range(1, 5)},
    **{f"streams.deep{i}.norm": f"sf2.bn{i}v" for i in range(1, 5)},
}
GCI = {
    "skip": "fc8_skip",
    "fuse": "fc8_x",
    "cue": "shallow_mask.fc_deep",
    "shallow": "shallow_mask.fc_skip",
    "out": "shallow_mask.fc_cls",
}


def _under(prefix: str, names: dict[str, str]) -> dict[str, str]:
    return {ours: f"{prefix}.{theirs}" for ours, theirs in names.items()}


CONTEXTS = {
    "fca": _under("fca", MCLM | {"srm.conv": "sa.conv"}),
    "mclm": _under("fca", MCLM),
    "aspp": _under("aspp", ASPP),
}
FUSIONS = {"sf2": SF2, "skip_gci": GCI}


def names(network: Network) -> dict[str, str]:
    """The published name of every tensor of a network, by our name.

    Raises SettingsError for a part that no published file has.
    """
    settings = network.recipe.model
    for field, known in (("context", CONTEXTS), ("fusion", FUSIONS)):
        if getattr(settings, field) not in known:
            raise SettingsError(
                f"model.{field}: {getattr(settings, field)!r} has no published layout; "
                f"{', '.join(known)} have"
            )
    if settings.private_attention:
        raise SettingsError("model.private_attention: has no published layout")
    table = {
        **{f"context.{k}": v for k, v in CONTEXTS[settings.context].items()},
        **{f"fusion.{k}": v for k, v in FUSIONS[settings.fusion].items()},
    }
    found = {}
    for name in network.state_dict():
        if name.startswith("backbone."):
            found[name] = name.removeprefix("backbone.")
        elif name.startswith("decoder."):
            found[name] = "last_conv." + name.removeprefix("decoder.")
        else:
            part = next(k for k in table if name.startswith(f"{k}."))
            found[name] = table[part] + name.removeprefix(part)
    return found


def load(source: str | Path | dict[str, Tensor], recipe: Recipe) -> Network:
    """The network of a recipe with published weights, in eval mode.

    source: a .pth file or its state dict; a trained network (WS-FCN 355 keys, baseline 309), or
    a backbone alone (the ImageNet file, 191 keys), beside which the new layers keep their random
    start. A `module.` prefix and missing counters are tolerated, unused tensors are dropped.
    Raises WeightsError listing every missing, unexpected or misshapen key by its published name.
    """
    tensors = read_pth(source) if isinstance(source, str | Path) else source
    label = str(source) if isinstance(source, str | Path) else "state dict"
    tensors = {k.removeprefix("module."): torch.as_tensor(v) for k, v in tensors.items()}
    tensors = {k: v for k, v in tensors.items() if not UNUSED.match(k)}
    network = build.build_model(recipe.change({"model.pretrained": False}))
    network.recipe = recipe
    own = network.state_dict()
    theirs = {published: ours for ours, published in names(network).items()}
    alone = {k: v for k, v in theirs.items() if v.startswith("backbone.")}
    wanted = alone if tensors and tensors.keys() <= alone.keys() else theirs
    problems = [f"missing {k}" for k in wanted if k not in tensors and not k.endswith(COUNTER)]
    problems += [f"unexpected {k}" for k in tensors if k not in wanted]
    problems += [
        f"{k} has shape {tuple(v.shape)}, expected {tuple(own[wanted[k]].shape)}"
        for k, v in tensors.items()
        if k in wanted and own[wanted[k]].shape != v.shape
    ]
    if problems:
        raise WeightsError(f"{label}: does not fit {recipe.name}: {'; '.join(problems)}")
    load_state(network, own | {wanted[k]: v for k, v in tensors.items()}, label)
    return network.eval()


def convert(file: str | Path, out: str | Path, recipe: Recipe | None = None) -> str:
    """Write a published file as safetensors; one line that says what it was.

    A trained network becomes a file for `wsfcn.load`, a backbone alone one for
    `model.pretrained`. Recipe and provenance (file name, sha256) go into the header. Without a
    recipe it is told by the names and the number of classes in the file.
    """
    tensors = read_pth(file)
    plain = {k.removeprefix("module."): v for k, v in tensors.items()}
    provenance = {"source": Path(file).name, "sha256": sha256(file), "keys": len(tensors)}
    recipe = recipe or _recipe_of(plain)
    network = load(tensors, recipe)
    if any(k.startswith("last_conv.") for k in plain):
        build.save(network, out, provenance)
        kind = f"{recipe.name}, {network.num_classes} classes"
    else:
        header = {"format": 1, "recipe": recipe.model_dump(mode="json"), "provenance": provenance}
        write_safetensors(out, network.backbone.state_dict(), header)
        kind = f"backbone {recipe.model.backbone} alone"
    return f"{out}: {kind}; {len(tensors)} keys; sha256 of {file}: {provenance['sha256']}"


def _recipe_of(tensors: dict[str, Tensor]) -> Recipe:
    bias = tensors.get("last_conv.8.bias")
    base = paper_coco() if bias is not None and len(bias) == 80 else paper_voc()
    return table1(base)["baseline"] if "aspp.conv1.weight" in tensors else base


def state(network: Network) -> dict[str, Tensor]:
    """The network's tensors in the published layout, complete: what the released code wants to
    load strictly, so also its unused norms (at their initial values) and PAMR's constants."""
    own = network.state_dict()
    found = {theirs: own[ours] for ours, theirs in names(network).items()}
    if network.recipe.model.context != "aspp":
        width = network.recipe.model.width
        for i in range(1, len(network.recipe.model.strips) + 1):
            for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0)):
                found[f"fca.fca{i}.bn.{name}"] = torch.full((width,), value)
            found[f"fca.fca{i}.bn.running_var"] = torch.ones(width)
            found[f"fca.fca{i}.bn.{COUNTER}"] = torch.zeros((), dtype=torch.int64)
    every = torch.eye(9).view(9, 1, 3, 3)
    neighbours = torch.cat([every[:4], every[5:]])
    found["_aff.aff_x.kernel"] = every[4] - neighbours
    found["_aff.aff_m.kernel"] = neighbours
    found["_aff.aff_std.kernel"] = every
    return found


def save(network: Network, path: str | Path) -> None:
    """Write the published layout as a .pth, whole or not at all."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in state(network).items()}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save(tensors, file)


def sha256(path: str | Path) -> str:
    """The checksum of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
