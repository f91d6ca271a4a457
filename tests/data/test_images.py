import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from wsfcn.data.images import ImageError, list_images, read_image, read_mask, to_rgb


@pytest.fixture
def colours():
    """(12, 16, 3): smooth, so that JPEG keeps it."""
    rows, columns = np.mgrid[0:12, 0:16]
    return np.stack([rows * 20, columns * 15, rows * 5 + columns * 5], -1).astype(np.uint8)


@pytest.fixture
def saved(tmp_path, colours):
    def save(name, image=None, **options):
        path = tmp_path / name
        (Image.fromarray(colours) if image is None else image).save(path, **options)
        return path

    return save


def fails(path, *words, reader=read_image, **options):
    with pytest.raises(ImageError) as caught:
        reader(path, **options)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 400
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "jpg"])
def test_formats(saved, colours, suffix):
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}
    image = read_image(saved(f"a.{suffix}", **options.get(suffix, {})))
    assert image.shape == (12, 16, 3) and image.dtype == np.uint8
    tolerance = 12 if suffix == "jpg" else 0
    assert np.abs(image.astype(int) - colours).max() <= tolerance
    image[0] = 0  # writable


def test_str_paths_and_photographs_of_scikit_image():
    import skimage

    path = os.path.join(os.path.dirname(skimage.__file__), "data", "coffee.png")
    assert read_image(path).shape == (400, 600, 3)


def test_missing_empty_and_folder(tmp_path, saved):
    fails(tmp_path / "no.jpg", "no such file")
    empty = tmp_path / "empty.png"
    empty.touch()
    fails(empty, "empty")
    fails(tmp_path, "folder")
    fails(saved("a.png") / "b.png", "no such file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    fails(tmp_path / "pipe.png", "regular file")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no Unix permissions")
def test_unreadable_file(saved):
    path = saved("locked.png")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    fails(path, "permission")


@pytest.mark.parametrize("content", [b"hello, I am text", b"\x00" * 500, b"%PDF-1.7\n", b"<svg/>"])
def test_no_image(tmp_path, content):
    path = tmp_path / "fake.jpg"
    path.write_bytes(content)
    fails(path, "no image")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_truncated(tmp_path, suffix, share):
    random = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(random).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    fails(path, "truncated or damaged")


def test_damaged_in_the_middle(saved):
    path = saved("flipped.png")
    data = bytearray(path.read_bytes())
    data[50:60] = b"\xff" * 10
    path.write_bytes(bytes(data))
    fails(path, "truncated or damaged")


def png(width, height, depth=8, colour_type=0, data=b""):
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_no_pixels(tmp_path):
    path = tmp_path / "flat.png"
    path.write_bytes(png(0, 5))
    fails(path)
    with pytest.raises(ImageError, match="no pixels"):
        to_rgb(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    ("width", "height"), [(9_400, 9_400), (30_000, 30_000), (2_000_000, 2_000_000)]
)
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(width, height))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fails(path, "shrink")


def test_the_limit_is_a_parameter(saved):
    fails(saved("a.png"), "16 x 12", "max_pixels", max_pixels=191)
    assert read_image(saved("a.png"), max_pixels=192).shape == (12, 16, 3)


def test_sixteen_bits(tmp_path):
    values = np.linspace(0, 65535, 12 * 16).reshape(12, 16).astype(np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(values).save(tmp_path / name)
        image = read_image(tmp_path / name)
        expected = np.rint(values / 257).astype(np.uint8)
        assert np.array_equal(image, np.repeat(expected[..., None], 3, axis=2))


def test_sixteen_bits_in_colour(tmp_path):
    path = tmp_path / "deep.png"
    pixel = struct.pack(">HHH", 65535, 32896, 0)
    path.write_bytes(png(2, 2, 16, 2, 2 * (b"\0" + 2 * pixel)))
    assert np.abs(read_image(path).astype(int) - (255, 128, 0)).max() <= 1


def test_real_numbers(tmp_path):
    path = tmp_path / "real.tif"
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(path)
    assert (read_image(path) == 128).all()
    Image.fromarray(np.full((4, 4), 200, np.float32)).save(path)
    assert (read_image(path) == 200).all()
    for wrong in (np.nan, -3.0, 1e6):
        values = np.full((4, 4), 0.5, np.float32)
        values[1, 1] = wrong
        Image.fromarray(values).save(path)
        fails(path, "scale them")
    Image.fromarray(np.full((4, 4), 1_000_000, np.int32)).save(path)
    fails(path, "1e+06")


def test_an_opened_image_that_cannot_be_decoded(saved):
    path = saved("cut.png")
    path.write_bytes(path.read_bytes()[:-40])
    with Image.open(path) as image, pytest.raises(ImageError, match=r"photo: .*truncated"):
        to_rgb(image, "photo")


def test_grey_and_one_bit(saved, colours):
    grey = Image.fromarray(colours).convert("L")
    image = read_image(saved("grey.png", grey))
    assert (image == np.asarray(grey)[..., None]).all()
    assert set(np.unique(read_image(saved("bit.png", grey.convert("1"))))) <= {0, 255}


def test_transparency_becomes_white(saved, colours):
    clear = np.dstack([colours, np.zeros((12, 16), np.uint8)])
    clear[:, 8:, 3] = 255
    image = read_image(saved("rgba.png", Image.fromarray(clear)))
    assert (image[:, :8] == 255).all() and np.array_equal(image[:, 8:], colours[:, 8:])
    half = Image.new("LA", (2, 2), (0, 128))
    assert np.abs(read_image(saved("la.png", half)).astype(int) - 127).max() <= 1


def test_palettes(saved):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    assert (read_image(saved("p.png", picture)) == (200, 100, 50)).all()
    assert (read_image(saved("t.png", picture, transparency=1)) == 255).all()
    assert (read_image(saved("t.gif", picture, transparency=1)) == 255).all()


def test_transparent_colour_of_rgb_and_grey(saved):
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert (read_image(saved("rgb.png", red, transparency=(255, 0, 0))) == 255).all()
    assert (read_image(saved("l.png", Image.new("L", (4, 4), 9), transparency=9)) == 255).all()


def test_cmyk(saved):
    path = saved("print.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    assert np.abs(read_image(path).astype(int) - (255, 0, 0)).max() < 8


def test_animation_gives_its_first_frame_and_a_warning(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        path = tmp_path / name
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
        with pytest.warns(UserWarning, match=rf"{name}: only the first of 3 frames"):
            assert (read_image(path) == (255, 0, 0)).all()


def test_the_second_picture_of_a_phone_is_no_animation(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green")]
    path = tmp_path / "phone.jpg"
    frames[0].save(path, "MPO", save_all=True, append_images=frames[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(read_image(path).astype(int) - (255, 0, 0)).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_exif_orientation(tmp_path, colours, orientation, mode):
    upright = Image.fromarray(colours[..., 1] * np.uint16(257)) if mode == "I;16" else None
    upright = upright or Image.fromarray(colours).convert(mode)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose that stores it this way
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), to_rgb(upright))


def test_damaged_exif_does_not_matter(saved, colours):
    image = read_image(saved("exif.png", exif=b"Exif\0\0 this is nonsense"))
    assert np.array_equal(image, colours)


def test_a_photo_of_a_phone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4000, 3000), (10, 200, 30)).save(tmp_path / "phone.jpg", exif=exif)
    assert read_image(tmp_path / "phone.jpg").shape == (4000, 3000, 3)


def test_masks(saved, tmp_path):
    indices = np.arange(192, dtype=np.uint8).reshape(12, 16)
    indices[0, 0] = 255
    grey = Image.fromarray(indices)
    palette = Image.fromarray(indices)
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    assert np.array_equal(read_mask(saved("l.png", grey)), indices)
    assert np.array_equal(read_mask(saved("p.png", palette)), indices)
    assert np.array_equal(read_mask(saved("p.png", palette, transparency=0)), indices)
    small = Image.fromarray(indices % 3)
    small.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    path = saved("few.png", small, bits=2)
    assert path.read_bytes()[24] == 2  # the file has two bits a pixel
    assert np.array_equal(read_mask(path), indices % 3)


def test_masks_of_the_wrong_kind(saved, tmp_path, colours):
    grey = Image.fromarray(colours[..., 0])
    fails(saved("rgb.png"), "8-bit PNG of class indices", reader=read_mask)
    fails(saved("l.jpg", grey), "JPEG", reader=read_mask)
    fails(saved("deep.png", Image.fromarray(colours[..., 0].astype(np.uint16))), reader=read_mask)
    fails(saved("bit.png", grey.convert("1")), reader=read_mask)
    four_bits = tmp_path / "four.png"
    four_bits.write_bytes(png(2, 1, 4, 0, b"\0\x12"))
    fails(four_bits, reader=read_mask)  # Pillow would stretch 1, 2 to 17, 34
    fails(tmp_path / "no.png", "no such file", reader=read_mask)


def test_masks_with_an_unknown_class(saved):
    path = saved("m.png", Image.fromarray(np.array([[0, 20], [21, 255]], np.uint8)))
    fails(path, "21", "0..20", reader=read_mask, num_classes=20)
    assert read_mask(path, num_classes=21).max() == 255


def test_list_images(saved, tmp_path):
    with pytest.raises(ImageError, match="no image"):
        list_images(tmp_path)
    for name in ("b.png", "a.JPG", "c.webp"):
        saved(name)
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png", "c.webp"]
    assert list_images(str(tmp_path / "b.png")) == [tmp_path / "b.png"]
    with pytest.raises(ImageError, match=r"nowhere: no such file or folder"):
        list_images(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "least", "shape"),
    [
        ("a.jpg", 0, (301, 401, 3)),
        ("a.jpg", 150, (151, 201, 3)),
        ("a.jpg", 151, (301, 401, 3)),
        ("a.jpg", 30, (38, 51, 3)),
        ("a.png", 30, (301, 401, 3)),
    ],
)
def test_a_jpeg_is_decoded_small_where_that_is_enough(saved, colours, name, least, shape):
    large = Image.fromarray(colours).resize((401, 301), Image.Resampling.BICUBIC)
    path = saved(name, large)
    found = read_image(path, least=least)
    assert found.shape == shape
    small = Image.fromarray(read_image(path)).resize(shape[1::-1], Image.Resampling.BOX)
    assert np.abs(found.astype(int) - np.asarray(small)).mean() < 2
