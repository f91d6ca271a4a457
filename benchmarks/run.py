"""Benchmarks: two ways to compute the same, checked equal, timed in turns in one process.

python benchmarks/run.py [--only NAME...] [--out FOLDER] [--picture FILE]

A ratio says how many times faster our way is than the plain one: medians over the rounds, CPU
seconds of one thread, so that a busy machine changes little; where processes are the claim, the
clock's. Writes benchmarks.json, benchmarks.md and growth.png. Exit code 1: a ratio is below its
aim, or the two ways do not agree. Where there is a GPU its rows come last (gpu.py).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

# Not torch: processes that are started here read this file, and need none.

OTHERS = ("start", "memory", "paper_memory", "growth", "gpu")
IMPORT_LIMIT, HELP_LIMIT = 1.0, 0.5  # CPU seconds


def judged(result: dict[str, Any], ceilings: dict[str, float]) -> dict[str, Any]:
    """A result with its ratios, the share of what the machine can do, and a verdict."""
    from measure import spread

    medians = [statistics.median(turns) for turns in result["seconds"]]
    result["medians"], result["ratio"] = medians, medians[0] / medians[1]
    result["spread"] = [spread(turns) for turns in result["seconds"]]
    passed = result["ratio"] >= result["aim"]
    if "memory" in result:
        result["memory_ratio"] = result["memory"][0] / max(1, result["memory"][1])
        measured = all(result["memory"])
        passed = passed and (not measured or result["memory_ratio"] >= result.get("aim_memory", 0))
    if "flops" in result:
        needs = {name: result[name] / ceilings[name] for name in ("bytes", "flops")}
        result["bound"] = max(needs, key=lambda name: needs[name])
        result["share"] = needs[result["bound"]] / medians[1] / result.get("cores", 1)
        passed = passed and result["share"] >= result.get("aim_share", 0)
    result["verdict"] = "ok" if passed else "MISSED"
    if not result["agree"]:
        result["verdict"] = "DO NOT AGREE"
    return result


def told(name: str, about: str, result: dict[str, Any]) -> list[str]:
    """Lines of Markdown."""
    clock = result.get("clock", "CPU")
    lines = [f"**{name}** {about}", "", f"| way | {clock}, ms | spread | peak memory, MiB |"]
    lines.append("|---|---:|---:|---:|")
    memory = result.get("memory", [])
    for index, way in enumerate(result["ways"]):
        peak = f"{memory[index] / 2**20:.1f}" if index < len(memory) else ""
        seconds, spread = result["medians"][index], result["spread"][index]
        lines.append(f"| {way} | {1000 * seconds:.2f} | {100 * spread:.0f} % | {peak} |")
    line = f"{result['ratio']:.1f} times faster (aim {result['aim']})"
    if "memory" in result:
        aim = f" (aim {result['aim_memory']})" if "aim_memory" in result else ""
        line += f", memory 1/{result['memory_ratio']:.1f}{aim}"
    lines += ["", f"{line}: {result['verdict']}. Compared: {result['note']}."]
    if "share" in result:
        aim = f" (aim {100 * result['aim_share']:.0f})" if "aim_share" in result else ""
        lines.append(
            f"Needs {result['bytes'] / 1e6:.1f} MB and {result['flops'] / 1e9:.2f} GFLOP: bound by "
            f"{result['bound']}, {100 * result['share']:.0f} %{aim} of what the machine can do."
        )
    return [*lines, ""]


def start() -> tuple[dict[str, float], list[str], bool]:
    """CPU seconds of fresh processes, the least of five."""
    import subprocess

    from measure import all_seconds, in_turns

    def way(*arguments: str) -> Any:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    names = ["import torch", "import torch, wsfcn", "wsfcn --help", "wsfcn train --help"]
    ways = [way("-c", name) for name in names[:2]]
    ways += [way("-m", *name.split()) for name in names[2:]]
    turns, _ = in_turns(*ways, rounds=5, clock=all_seconds)
    found = {name: min(seconds) for name, seconds in zip(names, turns, strict=True)}
    beyond, helped = found[names[1]] - found[names[0]], max(found[name] for name in names[2:])
    good = beyond < IMPORT_LIMIT and helped < HELP_LIMIT
    lines = ["**start** CPU seconds of a process, least of five", "", "| what | s |", "|---|---:|"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in found.items()]
    verdict = "ok" if good else "MISSED"
    limits = f"(aims {IMPORT_LIMIT} and {HELP_LIMIT})"
    lines += [
        "",
        f"wsfcn beyond torch {beyond:.2f} s, help {helped:.2f} s {limits}: {verdict}.",
        "",
    ]
    return found, lines, good


def memory() -> tuple[dict[str, float], list[str], bool]:
    import ratios

    found = ratios.memory()
    lines = [f"**memory** {ratios.memory.__doc__}", "", "| road | MiB |", "|---|---:|"]
    lines += [f"| {name} | {value / 2**20:.0f} |" for name, value in found.items()]
    few, many = [value for name, value in found.items() if "evaluation" in name]
    good = many <= 1.5 * few + 2**25
    return found, [*lines, "", f"It streams: {'ok' if good else 'MISSED'}.", ""], good


def paper_memory() -> tuple[dict[str, float], list[str], bool]:
    import ratios

    about = " ".join((ratios.paper_memory.__doc__ or "").split())
    found = ratios.paper_memory()
    good = found["float32"] < 24e9 and found["bf16, checkpointing"] < 11e9
    lines = [f"**paper_memory** {about}", "", "| | GB |", "|---|---:|"]
    lines += [f"| {name} | {value / 1e9:.1f} |" for name, value in found.items()]
    lines += ["", f"Aims 24 GB, and 11 GB with checkpointing: {'ok' if good else 'MISSED'}.", ""]
    return found, lines, good


def growing(picture: Path) -> tuple[dict[str, Any], list[str], bool]:
    import growth

    found = growth.measured()
    growth.draw(found, picture)
    lines = ["**growth** value ~ n^p", "", "| n | road | p of time | p of memory |"]
    lines.append("|---|---|---:|---:|")
    for axis, roads in found.items():
        for road, row in roads.items():
            powers = f"{row['time exponent']:.2f} | {row['memory exponent']:.2f}"
            lines.append(f"| {axis} | {road} | {powers} |")
    return found, [*lines, ""], True


def on_gpu(device: Any, sizes: Any = None) -> tuple[dict[str, Any], list[str], bool]:
    """The rows of gpu.py on a device, by default at the paper's sizes."""
    import gpu

    sizes = sizes or gpu.Sizes()
    ceilings = gpu.ceilings(device, sizes)
    found: dict[str, Any] = {"ceilings": ceilings}
    lines = [
        f"**gpu** copies {ceilings['bytes'] / 1e9:.0f} GB/s, products in bf16 "
        f"{ceilings['flops'] / 1e12:.2f} TFLOP/s. Seconds of the device, not of Python.",
        "",
    ]
    good = True
    for name, row in gpu.rows(sizes).items():
        try:
            found[name] = judged(row(device), ceilings)
        except RuntimeError as error:  # want of memory above all; the other rows still count
            reason = str(error).partition("\n")[0]
            lines += [f"**{name}** not measured: {reason}", ""]
            good = False
        else:
            lines += told(name, "", found[name])
            good = good and found[name]["verdict"] == "ok"
    if "gpu_step" in found:
        found["schedule"] = gpu.schedule(found["gpu_step"], sizes)
        lines += gpu.told(found["schedule"])
    return found, lines, good


def _gpu() -> tuple[dict[str, Any], list[str], bool]:
    import torch

    if torch.cuda.is_available():
        return on_gpu(torch.device("cuda"))
    said = "**gpu** not measured, there is none here; Triton's interpreter tests the kernels."
    return {}, [said, ""], True


def main(argv: list[str] | None = None) -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    import measure
    import torch
    from ratios import RATIOS

    names = [*RATIOS, *OTHERS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), metavar="FOLDER")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="of the growth, not in --out")
    arguments = parser.parse_args(argv)
    for name in arguments.only or ():
        if name not in names:
            parser.error(f"no benchmark {name!r}; known: {', '.join(names)}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ceilings = measure.ceilings()
        cores, version = os.cpu_count(), torch.__version__
        lines = [
            f"{platform.machine()}, {cores} cores, torch {version}, one thread: copies "
            f"{ceilings['bytes'] / 1e9:.1f} GB/s, products {ceilings['flops'] / 1e9:.0f} "
            f"GFLOP/s; load {os.getloadavg()[0]:.1f}.",
            "",
        ]
        print("\n".join(lines))
        found, good = {}, True
        for name in arguments.only or names:
            if name in RATIOS:
                found[name] = judged(RATIOS[name](), ceilings)
                part = told(name, RATIOS[name].__doc__ or "", found[name])
                good = good and found[name]["verdict"] == "ok"
            else:
                picture = arguments.picture or arguments.out / "growth.png"
                others = {"start": start, "memory": memory, "paper_memory": paper_memory}
                other = (others | {"gpu": _gpu}).get(name, lambda: growing(picture))  # noqa: B023
                found[name], part, fine = other()
                good = good and fine
            print("\n".join(part), flush=True)
            lines += part
    finally:
        torch.set_num_threads(threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    about = {"machine": platform.machine(), "cores": cores, "torch": version, "ceilings": ceilings}
    text = json.dumps(about | {"benchmarks": found}, indent=1)
    (arguments.out / "benchmarks.json").write_text(f"{text}\n")
    (arguments.out / "benchmarks.md").write_text("\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
