"""The kernel that notebooks run on: this very Python, able to import this very wsfcn."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Any

NAME = "python3"


def manager_class() -> type:
    """A jupyter_client kernel manager that starts `sys.executable`, whatever is registered.

    A kernel registered under the same name for the user could be another environment. Messages
    are encrypted where libzmq can (CurveZMQ), which also spares the warning of each kernel that
    they are not. Needs the extra `notebooks`.
    """
    import zmq
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class OwnSpec(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> Any:
            return KernelSpec(resource_dir=str(RESOURCES), env=variables(), **get_kernel_dict())

    class OwnKernel(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            super().__init__(kernel_spec_manager=OwnSpec(), **options)
            if zmq.has("curve"):
                self.transport_encryption = "auto"

    return OwnKernel


def variables() -> dict[str, str]:
    """Environment variables of the kernel: where wsfcn is, and an order of hashes that repeats."""
    root = str(Path(__file__).parents[2])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if root not in (sysconfig.get_paths()["purelib"], *paths):
        paths.insert(0, root)
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
