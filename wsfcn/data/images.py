"""Reading image files of any kind, and saying in one line what is wrong with one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .sample import IGNORE, DataError

MAX_PIXELS = 80_000_000
# No others: Pillow would let Ghostscript run what a file that calls itself a photo says.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".jfif", ".mpo", ".png", ".ppm", ".tif", ".tiff", ".webp")
)


class ImageError(DataError):
    """A file that is not the image it should be; one line that names the file."""


def read_image(
    path: str | Path, max_pixels: int = MAX_PIXELS, *, upright: bool = True, least: int = 0
) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB, upright as its EXIF orientation says, or as it is
    stored, which is how VOC and COCO draw their masks.

    Transparent pixels become white, 16-bit values are divided by 257, CMYK is converted without
    colour management. Of an animation the first frame is taken, with a warning. least: a JPEG may
    come at 1/2, 1/4 or 1/8 of its size, which is decoded faster, as long as both sides keep so
    many pixels; 0: never. Raises ImageError for anything that is missing, damaged, larger than
    `max_pixels`, or no image.
    """
    with _opened(path, max_pixels, least) as image:
        pixels = to_rgb(image, str(path), upright=upright)
        frames = 1
        with suppress(Exception):  # a frame that is not wanted may be damaged
            frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones store a preview as a second picture
        warnings.warn(f"{path}: only the first of {frames} frames is used", stacklevel=2)
    return pixels


def to_rgb(image: Image.Image, name: str = "image", *, upright: bool = True) -> NDArray[np.uint8]:
    """A Pillow image as (H, W, 3) uint8 RGB, converted as by `read_image`. Raises ImageError,
    which calls the image `name`, for pixels that have no meaning as colours."""
    if min(image.size) < 1:
        raise ImageError(f"{name}: has no pixels ({image.width} x {image.height})")
    try:
        turned = image
        if upright:
            with suppress(Exception):  # damaged EXIF data say nothing about the pixels
                turned = ImageOps.exif_transpose(image)
        if turned.mode.startswith(("I", "F")):
            grey = _to_eight_bits(np.asarray(turned), name)
            return np.repeat(grey[..., None], 3, axis=2)
        if turned.has_transparency_data:
            white = Image.new("RGBA", turned.size, "white")
            turned = Image.alpha_composite(white, turned.convert("RGBA"))
        return np.array(turned.convert("RGB"))
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be converted to RGB ({error})") from None


def read_mask(path: str | Path, num_classes: int | None = None) -> NDArray[np.uint8]:
    """A PNG of class indices, grey or with a palette, as (H, W) uint8: 0 background, 255 ignore.

    num_classes: the number K of foreground classes; an index above K other than 255 is then an
    error. Raises ImageError for colours, 16 bits or a format that changes values.
    """
    right = "needs an 8-bit PNG of class indices (grey or palette)"
    with _opened(path, MAX_PIXELS) as image:
        if image.format != "PNG":
            raise ImageError(f"{path}: is a {image.format} file; a mask {right}")
        header = Path(path).read_bytes()[24:26]
        if image.mode not in ("P", "L") or (image.mode == "L" and header[:1] != b"\x08"):
            raise ImageError(f"{path}: has pixels of kind {image.mode}; a mask {right}")
        mask = np.array(image)
    return mask if num_classes is None else check_range(path, mask, num_classes)


def check_range(path: str | Path, mask: NDArray, num_classes: int) -> NDArray:
    """The mask, if all it holds are 0..num_classes and 255. Raises ImageError naming the file."""
    wrong = mask[((mask > num_classes) & (mask != IGNORE)) | (mask < 0)]
    if wrong.size:
        raise ImageError(
            f"{path}: holds class {wrong[0]}; allowed are 0..{num_classes} and {IGNORE}"
        )
    return mask


def list_images(place: str | Path) -> list[Path]:
    """The image files of a folder by name (no subfolders, no hidden files), or the file given.
    Raises ImageError where there is nothing of the kind."""
    place = Path(place)
    if not place.exists():
        raise ImageError(f"{place}: no such file or folder")
    if not place.is_dir():
        return [place]
    try:
        files = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES)
    except PermissionError:
        raise ImageError(f"{place}: the folder may not be read (permission denied)") from None
    found = [file for file in files if file.name[0] != "." and file.is_file()]
    if not found:
        raise ImageError(f"{place}: the folder holds no image ({', '.join(sorted(SUFFIXES))})")
    return found


@contextmanager
def _opened(path: str | Path, max_pixels: int, least: int = 0) -> Iterator[Image.Image]:
    """The decoded image; whatever goes wrong in decoding becomes an ImageError."""
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageError(f"{path}: is a folder; give an image file")
        if path.exists() and not path.is_file():  # opening a pipe would wait
            raise ImageError(f"{path}: is no regular file; give an image file")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty (0 bytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit
            image = Image.open(path, formats=FORMATS)
        if image.width * image.height > max_pixels:
            image.close()
            raise ImageError(
                f"{path}: {image.width} x {image.height} px are more than the limit of "
                f"{max_pixels:,}; shrink the image or raise max_pixels"
            )
        if least:
            image.draft(None, (least, least))
        image.load()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        said = next((text for kind, text in _TROUBLES if isinstance(error, kind)), None)
        damaged = f"the image is truncated or damaged ({reason})"
        raise ImageError(f"{path}: {said or damaged}") from None
    with image:
        yield image


_TROUBLES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    ((FileNotFoundError, NotADirectoryError), "no such file"),
    (PermissionError, "the file may not be read (permission denied)"),
    (Image.DecompressionBombError, "has too many pixels to be opened safely; shrink the image"),
    (
        UnidentifiedImageError,
        "is no image, or of a kind that Pillow cannot read; give a JPEG or PNG",
    ),
)


def _to_eight_bits(values: NDArray, name: str) -> NDArray[np.uint8]:
    """Grey values of 16 bits, or real ones in 0..1 or 0..255."""
    low, high = float(values.min()), float(values.max())
    real = np.issubdtype(values.dtype, np.floating)
    limit = 65535.0 if not real else 255.0 if high > 1 else 1.0
    if not (low >= 0 and high <= limit):  # also where a value is not a number
        raise ImageError(f"{name}: pixels from {low:g} to {high:g}; scale them to 0..255 first")
    scaled = values.astype(np.float32)  # exact for 16 bits; a large image in 64 takes gigabytes
    scaled *= 255 / limit
    return np.rint(scaled, out=scaled).astype(np.uint8)
