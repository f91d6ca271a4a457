"""Read mutated files: no crash, no hang, at most 2 GB of memory, an error that names the file.

`python -m proofs.fuzz --count 1000` mutates files of every kind so many times, each kind in a
process of its own that is watched from here, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 60  # for one file, on a busy machine
MEMORY = 2 << 30  # bytes
NUMBERS = [0, -1, 1, 2**31 - 1, 2**31, 2**63, 10**30, -(10**9), 1e308, float("nan"), float("inf")]
VALUES = [*NUMBERS, None, True, "", "a" * 5000, "../../etc/passwd", "\0", [], [[]], {}, "=1+1"]


class Kind(NamedTuple):
    """originals(folder) writes files and names them; read(path) reads one; errors are refusals."""

    originals: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...]


# --- mutations ---


def mutated(data: bytes, draw: random.Random) -> bytes:
    """One to four changes of the bytes; JSON is at times changed as values."""
    if data[:1] in (b"{", b"[") and draw.random() < 0.5:
        return json.dumps(_other(json.loads(data), draw)).encode()
    body = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place, size = draw.randrange(len(body) + 1), draw.choice([1, 2, 4, 8, 64])
        # Headers are where readers decide.
        place = min(place, draw.choice([64, 512, len(body)]))
        match draw.randrange(8):
            case 0:
                body[place : place + 1] = bytes([draw.randrange(256)])
            case 1 if place < len(body):
                body[place] ^= 1 << draw.randrange(8)
            case 2:
                del body[place:]
            case 3:
                del body[place : place + size]
            case 4:
                body[place:place] = draw.randbytes(size)
            case 5:
                body[place : place + size] = draw.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * size
            case 6:
                start = draw.randrange(len(body) + 1)
                body[place:place] = body[start : start + 16 * size]
            case _:
                tokens = [
                    b"[" * 500,
                    b'"',
                    b"\n",
                    b",",
                    b"&a *a",
                    b"99999999999",
                    b"-1",
                    b"\xef\xbb\xbf",
                ]
                body[place : place + draw.randrange(3)] = draw.choice(tokens)
        body = body or bytearray(b"\0")
    return bytes(body)


def _other(value: Any, draw: random.Random) -> Any:
    """The value with one of its leaves or branches replaced."""
    if isinstance(value, dict | list) and value and draw.random() < 0.9:
        key = draw.choice([*(value if isinstance(value, dict) else range(len(value)))])
        changed = value.copy()
        if draw.random() < 0.1:
            del changed[key]
        else:
            changed[key] = _other(value[key], draw)
        return changed
    return draw.choice(VALUES)


# --- kinds of files ---


def _images(folder: Path) -> list[Path]:
    import numpy as np
    from PIL import Image

    photo = Image.effect_noise((40, 30), 60)
    colour = Image.merge("RGB", [photo, photo.rotate(90), photo.rotate(180)])
    kinds = {"a.jpg": colour, "b.png": colour, "c.gif": colour, "d.bmp": colour, "e.tif": colour}
    kinds |= {"f.webp": colour, "g.ppm": colour, "h.png": photo.convert("1"), "j.tif": photo}
    kinds |= {"i.jpg": colour.convert("CMYK"), "k.png": colour.convert("P")}
    kinds |= {"l.png": Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30))}
    for name, image in kinds.items():
        image.save(folder / name)
    return [folder / name for name in kinds]


def _read_image(path: Path) -> None:
    from wsfcn.data.images import ImageError, read_image, read_mask

    try:
        read_mask(path)
    except ImageError as error:
        assert str(path) in str(error)
    read_image(path)


def _tables(folder: Path) -> list[Path]:
    from PIL import Image

    Image.new("RGB", (20, 20)).save(folder / "a.png")
    Image.new("RGB", (20, 20)).save(folder / "é b.png")
    texts = [
        "file,class\na.png,cat; dog\né b.png,dog\n",
        "file,class,split\na.png,cat,train\né b.png,dog,val\n",
        '\ufeff# mine\n"a.png","cat"\r\n"é b.png","dog; ""old"""\r\n',
    ]
    for number, text in enumerate(texts):
        (folder / f"{number}.csv").write_text(text, encoding="utf-8")
    return [folder / f"{number}.csv" for number in range(len(texts))]


def _read_table(path: Path) -> None:
    from wsfcn.data import Folder

    data = Folder(path.rename(path.with_name("labels.csv")).parent, "all")
    for index in range(len(data)):
        data[index]


def _annotations(folder: Path) -> list[Path]:
    from PIL import Image

    for name in ("annotations", "train2014"):
        (folder / name).mkdir()
    Image.new("RGB", (20, 10)).save(folder / "train2014" / "a.jpg")
    square = [[0, 0, 8, 0, 8, 8, 0, 8], [10, 1, 18, 1, 18, 8.5]]
    codes = [{"counts": [3, 7, 190], "size": [10, 20]}, {"counts": "37n5", "size": [10, 20]}]
    things = [
        {
            "image_id": 1,
            "category_id": 1 + n % 2,
            "segmentation": outline,
            "iscrowd": n % 2,
            "id": n,
        }
        for n, outline in enumerate([square, *codes])
    ]
    found = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 20}],
        "annotations": things,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    path = folder / "annotations" / "instances_train2014.json"
    path.write_text(json.dumps(found))
    return [path]


def _read_annotations(path: Path) -> None:
    from wsfcn.data import Coco

    place = path.rename(path.with_name("instances_train2014.json"))
    Coco(place.parents[1])[0]


def _checkpoints(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import save_file

    import wsfcn
    from wsfcn import recipes
    from wsfcn.weights import _sort_header, write_safetensors

    torch.manual_seed(0)
    tensors = {"a": torch.rand(30), "b.c": torch.ones(2, 3, 4), "d": torch.arange(5)}
    write_safetensors(folder / "a.safetensors", tensors, {"recipe": {"name": "x"}, "n": [1, None]})
    torch.save(tensors, folder / "b.pth")
    torch.save(tensors, folder / "c.pth", _use_new_zipfile_serialization=False)
    recipe = recipes.smoke_scenes().change({"model.pretrained": False})
    network = wsfcn.build_model(recipe)
    # Without its checksum, so that mutants come further than to that.
    header = {"recipe": recipe.model_dump(mode="json"), "classes": list(network.classes)}
    texts = {k: json.dumps(v) for k, v in header.items()}
    plain = {k: v.contiguous() for k, v in network.state_dict().items()}
    for name, values, told in (("d", plain, texts), ("e", tensors, {"recipe": '{"name": "x"}'})):
        save_file(values, folder / f"{name}.safetensors", told)
        _sort_header(folder / f"{name}.safetensors")
    return [folder / name for name in ("a.safetensors", "b.pth", "c.pth", "d.safetensors")] + [
        folder / "e.safetensors"
    ]


def _read_checkpoint(path: Path) -> None:
    import wsfcn
    from wsfcn.weights import read_pth

    read_pth(path)
    if path.suffix == ".safetensors":
        wsfcn.load(path)


def _parameters(folder: Path) -> list[Path]:
    text = "profile: smoke\nscenes: 8\nshown: 3\nmodel: lite-scenes\nphoto: ''\nseed: 0\n"
    (folder / "a.yaml").write_text(text)
    (folder / "b.yaml").write_text('{"scenes": 8, "shown": 3, "seed": 1}')
    return [folder / "a.yaml", folder / "b.yaml"]


def _read_parameters(path: Path) -> None:
    from wsfcn.settings import SettingsError, read_yaml
    from wsfcn.study.parameters import PARAMETERS
    from wsfcn.study.sources import resolve

    values = read_yaml(path)
    try:
        resolve(PARAMETERS["01_cams"], values)
    except SettingsError as error:  # which names the parameter
        assert any(name in str(error) for name in ("profile", *map(str, values)))


def _recipes(folder: Path) -> list[Path]:
    from wsfcn import recipes

    (folder / "a.json").write_text(recipes.paper_coco().model_dump_json(indent=1))
    (folder / "b.json").write_text(recipes.lite_scenes().model_dump_json())
    return [folder / "a.json", folder / "b.json"]


def _read_recipe(path: Path) -> None:
    from wsfcn.runs import read_recipe

    read_recipe(path.rename(path.with_name("recipe.json")).parent)


def kinds() -> dict[str, Kind]:
    """What is fuzzed, by name; imported late, in the process that reads."""
    from wsfcn.data.sample import DataError
    from wsfcn.runs import RunError
    from wsfcn.weights import WeightsError

    return {
        "images": Kind(_images, _read_image, (DataError,)),
        "labels": Kind(_tables, _read_table, (DataError,)),
        "annotations": Kind(_annotations, _read_annotations, (DataError,)),
        "checkpoints": Kind(_checkpoints, _read_checkpoint, (WeightsError,)),
        "parameters": Kind(_parameters, _read_parameters, (ValueError,)),
        "recipes": Kind(_recipes, _read_recipe, (RunError,)),
    }


NAMES = ("images", "labels", "annotations", "checkpoints", "parameters", "recipes")


# --- reading in a watched process ---


def worker(name: str, seeds: range, folder: Path) -> None:
    """Read a mutant for each seed; a line of JSON before and after each."""
    resource.setrlimit(resource.RLIMIT_DATA, (3 * MEMORY, 3 * MEMORY))
    warnings.simplefilter("ignore")
    kind = kinds()[name]
    originals = kind.originals(folder)
    bodies = [path.read_bytes() for path in originals]
    for seed in seeds:
        print(json.dumps({"begun": seed}), flush=True)
        draw = random.Random(f"{name} {seed}")
        number = draw.randrange(len(bodies))
        path = originals[number].with_name(f"mutant{originals[number].suffix}")
        path.write_bytes(mutated(bodies[number], draw))
        started = time.perf_counter()
        try:
            kind.read(path)
            outcome = "read"
        except kind.errors as error:
            said = str(error)
            # One line, but for what the command line would escape, about a file of this folder.
            named = str(folder) in said and len(said.splitlines()) == 1 and len(said) < 2000
            outcome = "refused" if named else f"badly told: {said!r:.300}"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error!s:.300}"
        seconds = time.perf_counter() - started
        print(json.dumps({"outcome": outcome, "seconds": seconds, "peak": _peak()}), flush=True)


def _peak() -> int:
    """The most memory that this process has held, bytes."""
    if sys.platform == "linux":  # getrusage counts what the parent held when it forked
        with open("/proc/self/status") as file:
            return next(int(s.split()[1]) << 10 for s in file if s.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Result(NamedTuple):
    """Of a kind of files. wrong: (seed, what happened) of each mutant that was not dealt with."""

    outcomes: Counter[str]
    wrong: list[tuple[int, str]]
    slowest: float
    peak: int


def fuzz(name: str, count: int, first: int = 0) -> Result:
    """Let a process read so many mutants; it is started anew after one that it did not survive."""
    outcomes, wrong, slowest, peak, seed = Counter[str](), [], 0.0, 0, first
    while seed < first + count:
        with tempfile.TemporaryDirectory() as place:
            command = [sys.executable, __file__, "--worker", name, str(seed), str(first + count)]
            process = subprocess.Popen(
                [*command, place],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            )
            assert process.stdout is not None
            lines = os.fdopen(os.dup(process.stdout.fileno()), "rb", buffering=0)
            text, end = b"", None
            while end is None:
                ready, _, _ = select.select([lines], [], [], SECONDS)
                chunk = lines.read(65536) if ready else b""
                text += chunk
                *whole, text = text.split(b"\n")
                for line in whole:
                    told = json.loads(line)
                    if "begun" in told:
                        seed = told["begun"]
                        continue
                    fine = told["outcome"] in ("read", "refused")
                    outcomes[told["outcome"] if fine else "wrong"] += 1
                    if not fine:
                        wrong.append((seed, told["outcome"]))
                    slowest, peak = max(slowest, told["seconds"]), max(peak, told["peak"])
                    seed += 1
                if not chunk:
                    end = "ended" if ready else f"took more than {SECONDS} s"
            lines.close()
            process.kill()
            code = process.wait()
        if seed < first + count:  # the process did not come to its end
            outcomes["wrong"] += 1
            wrong.append((seed, f"{end} ({code})"))
            seed += 1
    return Result(outcomes, wrong, slowest, peak)


def main() -> int:
    """The command line; exit code 1 where a mutant was not dealt with."""
    if sys.argv[1:2] == ["--worker"]:
        name, start, stop, place = sys.argv[2:]
        worker(name, range(int(start), int(stop)), Path(place))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=NAMES)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    given = parser.parse_args()
    bad = 0
    print("| files | mutants | read | refused | wrong | slowest, s | peak memory, GB |")
    print("|---|---|---|---|---|---|---|")
    for name in given.kinds:
        result = fuzz(name, given.count, given.first)
        numbers = [result.outcomes[k] for k in ("read", "refused", "wrong")]
        cells = [name, given.count, *numbers, f"{result.slowest:.1f}", f"{result.peak / 1e9:.2f}"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
        for seed, what in result.wrong:
            print(f"  seed {seed}: {what}", file=sys.stderr)
        bad += numbers[2] + (result.peak > MEMORY)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
