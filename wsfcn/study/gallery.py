"""The gallery: every notebook executed, each an offline page of its own, and an index of them.

`python -m wsfcn.study.gallery` is what `make gallery` calls. It shares its executions with
`make course`: what ran there unchanged is not run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data.artwork import credit_lines
from ..files import check_output_folder
from .course import execute_all
from .page import build_page


def gallery(
    folder: str | Path,
    executed: str | Path = "runs/course",
    profile: str = "laptop",
    progress: bool = True,
) -> Path:
    """Execute the notebooks into `executed`, write NAME.html and index.html into `folder`."""
    folder = check_output_folder(folder)
    runs = execute_all(check_output_folder(executed), profile, progress)
    return build_page(
        folder,
        [run.path for run in runs],
        title="WS-FCN in pictures",
        lead="The notebooks of the course, executed. Their explorers answer without a network.",
        credits=credit_lines(),
        apart=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `make gallery`."""
    parser = argparse.ArgumentParser(description="Every notebook as an offline page, an index.")
    parser.add_argument("--out", default="runs/gallery", help="output folder")
    parser.add_argument("--executed", default="runs/course", help="folder of the executed copies")
    parser.add_argument("--profile", default="laptop", choices=("smoke", "laptop"))
    options = parser.parse_args(arguments)
    print(gallery(options.out, options.executed, options.profile), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
