"""Parameters and FLOPs of every row of Tables I and II, beside the paper's, without memory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..build import build_model
from ..model.network import Network, count_parameters
from ..recipes import Recipe, table1, table2

# row of ours: its name in the paper, and the millions of parameters there
PAPER: dict[int, dict[str, tuple[str, float]]] = {
    1: {
        "baseline": ("T1 baseline", 137.10),
        "mclm": ("T1 +FCA(MCLM only)", 143.52),
        "fca": ("T1 +FCA", 143.52),
        "sf2": ("T1 +SF2", 140.92),
        "full": ("T1 full", 147.34),
    },
    2: {
        "non_local": ("T2 non-local", 140.97),
        "large_conv": ("T2 large conv", 157.75),
        "ppm": ("T2 PPM", 142.03),
        "fca": ("T2 FCA", 143.52),
        "sum": ("T2 summation", 140.85),
        "concat": ("T2 concatenation", 142.03),
        "multiply": ("T2 multiplication", 140.85),
        "sf2": ("T2 SF2", 140.92),
    },
}
PARTS = ("backbone", "context", "fusion", "decoder")
SIDE = 321  # px, the paper's training crop


@dataclass(frozen=True)
class Row:
    """One network: `paper` and `ours` in millions of trained parameters, `exact` and `parts` to the
    last one; `gflop` for one SIDE x SIDE image, 2 to a multiply-add, matrix products included."""

    name: str
    paper: float
    ours: float
    exact: int
    parts: dict[str, int]
    gflop: float

    @property
    def difference(self) -> float:
        """ours - paper, millions."""
        return round(self.ours - self.paper, 2)


def meta_network(recipe: Recipe) -> Network:
    """The network of a recipe without memory for its tensors."""
    with torch.device("meta"):
        return build_model(recipe.change({"model.pretrained": False}))


def gflop(network: Network, side: int = SIDE) -> float:
    """10^9 floating point operations of one image in evaluation."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() / 1e9


def parameter_rows(table: int | None = None) -> list[Row]:
    """The rows of Table I, Table II, or both (13)."""
    rows = []
    for number in (1, 2) if table is None else (table,):
        recipes = table1() if number == 1 else table2()
        for row, (name, paper) in PAPER[number].items():
            network = meta_network(recipes[row])
            exact = count_parameters(network)
            parts = {part: count_parameters(getattr(network, part)) for part in PARTS}
            flops = round(gflop(network), 1)
            rows.append(Row(name, paper, round(exact / 1e6, 2), exact, parts, flops))
    return rows


def as_json(rows: list[Row]) -> str:
    """Rows by name."""
    fields = [asdict(row) | {"difference": row.difference} for row in rows]
    return json.dumps({row.pop("name"): row for row in fields}, indent=1)


def as_text(rows: list[Row]) -> str:
    """A table for the terminal."""
    head = "".join(f"{part:>10}" for part in PARTS)
    lines = [f"{'':<20}{'paper':>8}{'ours':>8}{'diff':>7}{head}{'GFLOP':>8}"]
    for row in rows:
        parts = "".join(f"{row.parts[part] / 1e6:>10.3f}" for part in PARTS)
        millions = f"{row.paper:>8.2f}{row.ours:>8.2f}{row.difference:>7.2f}"
        lines.append(f"{row.name:<20}{millions}{parts}{row.gflop:>8.1f}")
    title = "Trained parameters in millions (frozen stem, blocks and backbone norms not counted)"
    return "\n".join([title, "", *lines, "", f"GFLOP: one {SIDE} x {SIDE} image, evaluation"])
