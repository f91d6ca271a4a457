"""Downloads from a local server that fails in the usual ways, and archives that are not safe."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wsfcn import cli
from wsfcn.data import Coco, Voc
from wsfcn.data import unpack as module
from wsfcn.data.check import check
from wsfcn.data.fetch import CHUNK, SETS, Archive, fetch
from wsfcn.data.unpack import FetchError, unpack
from wsfcn.evaluate import Score, evaluate_folder

TIMEOUT = 0.5
TINY = (
    "--augment.crop 32 --model.width 16 --model.align-width 8 --model.skip-width 8 "
    "--train.epochs 2 --train.warmup-epochs 1 --train.batch-size 2 --train.epoch-steps 0"
)


def tar(members: dict[str, bytes], kind: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=kind) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


CONTENT = bytes(range(256)) * 4000  # 1 MB: several reads of the client
ARCHIVE = tar({"top/kit/a.txt": b"first", "top/kit/sub/b.bin": CONTENT, "top/code/c": b"no"})


class Server(ThreadingHTTPServer):
    """`requests` are (path, Range header) in order; each path fails in its own way."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.release = threading.Event()
        self.broken = 0
        self.files: dict[str, bytes] = {}
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # clients that leave are expected

    def url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}/archive.tar"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        way = self.path.split("/")[1]
        wanted = self.headers.get("Range")
        self.server.requests.append((way, wanted))
        getattr(self, way.replace("-", "_"))(wanted)
        self.close_connection = True

    def send(self, body, start=0, cut=None, status=None, length=True):
        self.send_response(status or (206 if start else 200))
        if length:
            self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body[start:cut])
        self.wfile.flush()

    @staticmethod
    def start(wanted):
        return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0

    def good(self, wanted):
        start = self.start(wanted)
        if start > len(ARCHIVE):
            return self.send(b"", status=416)
        self.send(ARCHIVE, start)

    def published(self, wanted):
        self.send(self.server.files[self.path.rpartition("/")[2]])

    def ignores_range(self, wanted):
        self.send(ARCHIVE)

    def missing(self, wanted):
        self.send(b"no such file", status=404)

    def login_page(self, wanted):
        self.send(b"<html>please log in</html>")

    def wrong(self, wanted):
        self.send(ARCHIVE[:-1] + b"\x01")

    def truncates(self, wanted):
        self.send(ARCHIVE, cut=6 * CHUNK)

    def truncates_without_length(self, wanted):
        self.send(ARCHIVE, cut=6 * CHUNK, length=False)

    def breaks_twice(self, wanted):
        start = self.start(wanted)
        self.server.broken += 1
        self.send(ARCHIVE, start, start + 4 * CHUNK if self.server.broken < 3 else None)

    def stalls(self, wanted):
        self.send(ARCHIVE, cut=4 * CHUNK)
        self.server.release.wait(20)

    def stalls_without_ranges(self, wanted):
        self.stalls(None)

    def silent(self, wanted):
        self.server.release.wait(20)

    def other_range(self, wanted):
        self.send(ARCHIVE, self.start(wanted) + 1) if wanted else self.truncates(wanted)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def sets(server):
    def build(*ways, body=ARCHIVE, **changes):
        values = {
            "name": "archive.tar",
            "size": len(body),
            "sources": tuple(server.url(way) for way in ways),
            "top": "top/kit",
            "target": "set/kit",
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        return {"demo": (Archive(**values | changes),)}

    return build


def got(folder: Path) -> bool:
    """The set is there, whole, and nothing else."""
    files = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file()}
    assert sorted(files) == ["set/kit/a.txt", "set/kit/sub/b.bin"]
    return files["set/kit/sub/b.bin"].read_bytes() == CONTENT


def test_a_good_source(server, sets, tmp_path):
    lines = []
    found = fetch("demo", tmp_path / "new" / "data", sets=sets("good"), say=lines.append)
    assert found == [tmp_path / "new/data/set/kit"]
    assert got(tmp_path / "new/data")
    assert server.url("good") in lines[0] and "1.0 MB" in lines[0]


def test_a_second_call_finds_what_is_there(server, sets, tmp_path):
    fetch("demo", tmp_path, sets=sets("good"), say=lambda _: None)
    lines = []
    assert fetch("demo", tmp_path, sets=sets("missing"), say=lines.append)
    assert lines == [f"{tmp_path / 'set/kit'}: is there already"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("missing", "404 Not Found"),
        ("login-page", "offers 26 bytes where the file has"),
        ("wrong", "wrong bytes (sha256 "),
        ("truncates", "broke off after 393216"),
        ("truncates-without-length", "broke off after 393216"),
        ("stalls", "no data for 0.5 s"),
        ("silent", "no data for 0.5 s"),
    ],
)
def test_a_bad_source_is_named_and_the_next_one_helps(server, sets, tmp_path, way, reason):
    lines = []
    begin = time.monotonic()
    fetch("demo", tmp_path, sets=sets(way, "good"), timeout=TIMEOUT, say=lines.append)
    assert got(tmp_path)
    [note] = [line for line in lines if line.startswith("note:")]
    assert server.url(way) in note and reason in note
    assert time.monotonic() - begin < 10
    assert server.requests[-1][0] == "good"


@pytest.mark.parametrize("way", ["missing", "wrong", "truncates", "stalls", "login-page"])
def test_where_no_source_helps_one_line_names_them_all(server, sets, tmp_path, way):
    with pytest.raises(FetchError) as caught:
        fetch("demo", tmp_path, sets=sets(way, "silent"), timeout=TIMEOUT, say=lambda _: None)
    message = str(caught.value)
    assert "\n" not in message
    assert all(text in message for text in ("archive.tar", server.url(way), server.url("silent")))
    assert "no data for 0.5 s" in message
    assert not (tmp_path / "set/kit").exists() and not (tmp_path / "archive.tar").exists()


def test_a_server_that_is_not_there(server, sets, tmp_path):
    archive = replace(sets()["demo"][0], sources=("http://127.0.0.1:9/x.tar",))
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch("demo", tmp_path, sets={"demo": (archive,)}, say=lambda _: None)


def test_a_broken_download_goes_on_where_it_ended(server, sets, tmp_path):
    fetch("demo", tmp_path, sets=sets("breaks-twice"), timeout=TIMEOUT, say=lambda _: None)
    assert got(tmp_path)
    ranges = [wanted for _, wanted in server.requests]
    assert ranges == [None, "bytes=262144-", "bytes=524288-"]


def test_another_source_and_a_later_call_go_on_too(server, sets, tmp_path):
    with pytest.raises(FetchError):
        fetch("demo", tmp_path, sets=sets("stalls"), timeout=TIMEOUT, say=lambda _: None)
    assert (tmp_path / "archive.tar.part").stat().st_size == 4 * CHUNK
    server.requests.clear()
    fetch("demo", tmp_path, sets=sets("missing", "good"), say=lambda _: None)
    assert got(tmp_path)
    assert server.requests == [("missing", "bytes=262144-"), ("good", "bytes=262144-")]


def test_a_server_without_ranges_starts_anew(server, sets, tmp_path):
    (tmp_path / "archive.tar.part").write_bytes(ARCHIVE[:500_000])
    fetch("demo", tmp_path, sets=sets("ignores-range"), say=lambda _: None)
    assert got(tmp_path)
    assert server.requests == [("ignores-range", "bytes=500000-")]


def test_a_wrong_part_is_thrown_away_and_the_source_asked_again(server, sets, tmp_path):
    (tmp_path / "archive.tar.part").write_bytes(b"x" * 1000)
    fetch("demo", tmp_path, sets=sets("good"), say=lambda _: None)
    assert got(tmp_path)
    assert server.requests == [("good", "bytes=1000-"), ("good", None)]


def test_a_part_longer_than_the_file_is_thrown_away(server, sets, tmp_path):
    (tmp_path / "archive.tar.part").write_bytes(b"x" * (len(ARCHIVE) + 5))
    fetch("demo", tmp_path, sets=sets("good"), say=lambda _: None)
    assert got(tmp_path)


def test_an_answer_with_another_range_is_not_glued_on(server, sets, tmp_path):
    lines = []
    fetch("demo", tmp_path, sets=sets("other-range", "good"), say=lines.append)
    assert got(tmp_path)
    assert any("other-range/archive.tar: broke off" in line for line in lines)


@pytest.mark.parametrize("way", ["stalls-without-ranges", "login-page", "other-range", "missing"])
def test_a_source_that_is_worse_leaves_the_part_that_others_gave(server, sets, tmp_path, way):
    (tmp_path / "archive.tar.part").write_bytes(ARCHIVE[:500_000])
    lines = []
    fetch("demo", tmp_path, sets=sets(way, "good"), timeout=TIMEOUT, say=lines.append)
    assert got(tmp_path)
    assert server.requests[-1] == ("good", "bytes=500000-") and "note: " in lines[1]


def test_an_interrupted_check_of_the_bytes_loses_nothing(server, sets, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pooch.core.hash_matches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("demo", tmp_path, sets=sets("good"), say=lambda _: None)
    server.requests.clear()
    fetch("demo", tmp_path, sets=sets("good"), say=lambda _: None)
    assert got(tmp_path) and server.requests == []


def test_a_first_download_grows_where_the_next_call_looks(server, sets, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", None)  # a process that is killed tidies nothing
        with pytest.raises(FetchError):
            fetch("demo", tmp_path, sets=sets("stalls"), timeout=TIMEOUT, say=lambda _: None)
    assert (tmp_path / "archive.tar.part").stat().st_size == 4 * CHUNK


def test_a_time_that_is_none_is_refused_before_anything_is_touched(server, sets, tmp_path):
    (tmp_path / "archive.tar.part").write_bytes(ARCHIVE[:500_000])
    with pytest.raises(ValueError, match="timeout: needs more than 0 seconds"):
        fetch("demo", tmp_path, sets=sets("good"), timeout=0, say=lambda _: None)
    assert (tmp_path / "archive.tar.part").stat().st_size == 500_000


def test_a_whole_part_of_a_killed_process_needs_no_server(server, sets, tmp_path):
    (tmp_path / "archive.tar.part").write_bytes(ARCHIVE)
    fetch("demo", tmp_path, sets=sets("missing"), say=lambda _: None)
    assert got(tmp_path) and server.requests == []


def test_an_archive_put_there_by_hand_is_used_and_kept(server, sets, tmp_path):
    (tmp_path / "archive.tar").write_bytes(ARCHIVE)
    fetch("demo", tmp_path, sets=sets("missing"), say=lambda _: None)
    assert server.requests == []
    (tmp_path / "archive.tar").unlink()
    assert got(tmp_path)


def test_md5_serves_where_no_sha256_is_known(server, sets, tmp_path):
    md5 = hashlib.md5(ARCHIVE).hexdigest()
    lines = []
    chosen = sets("wrong", "good", sha256=None, md5=md5)
    fetch("demo", tmp_path, sets=chosen, say=lines.append)
    assert got(tmp_path)
    assert any("wrong bytes (md5" in line for line in lines)


def test_without_a_checksum_the_one_received_is_told_and_nothing_is_resumed(server, sets, tmp_path):
    (tmp_path / "archive.tar.part").write_bytes(ARCHIVE[:1000])
    lines = []
    fetch("demo", tmp_path, sets=sets("good", sha256=None, size=0), say=lines.append)
    assert got(tmp_path)
    assert server.requests == [("good", None)]
    assert any(hashlib.sha256(ARCHIVE).hexdigest() in line for line in lines)


def test_a_small_disk_is_told_before_anything_is_loaded(server, sets, tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))(10, 10, 1_500_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FetchError, match=r"needs 2.1 MB .* 1.5 MB are free; .*--to"):
        fetch("demo", tmp_path / "there", sets=sets("good"), say=lambda _: None)
    assert server.requests == [] and not (tmp_path / "there").exists()


def test_a_name_that_is_not_known(tmp_path):
    with pytest.raises(ValueError, match="no data set 'voc2007'; known: voc2012, sbd, coco2014"):
        fetch("voc2007", tmp_path)


def test_the_sources_of_the_real_sets_are_complete():
    names = [archive.name for archives in SETS.values() for archive in archives]
    assert len(set(names)) == len(names) == 5
    for archive in sum(SETS.values(), ()):
        assert archive.checksum.startswith("sha256:") and len(archive.sha256) == 64
        assert len(archive.md5) == 32 and archive.size > 10**8
        assert len(archive.sources) >= 2
        assert all(url.endswith("/" + archive.name) for url in archive.sources)


def packed(name: str, folder: Path, top: str) -> bytes:
    """The folder as `top` in an archive of the kind that the name says."""
    files = {f"{top}/{f.relative_to(folder)}": f for f in folder.rglob("*") if f.is_file()}
    if not name.endswith(".zip"):
        contents = {place: file.read_bytes() for place, file in files.items()}
        return tar(contents, "w:gz" if name.endswith("gz") else "w")
    return zipped(**{place: file.read_bytes() for place, file in files.items()})


@pytest.mark.timeout(300)
def test_published_trees_are_fetched_checked_trained_on_and_scored(
    server, voc, coco, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WSFCN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    homes = {
        "VOCtrainval_11-May-2012.tar": voc / "voc/VOCdevkit/VOC2012",
        "benchmark.tgz": voc / "sbd/benchmark_RELEASE/dataset",
        "annotations_trainval2014.zip": coco / "annotations",
        "train2014.zip": coco / "images/train2014",
        "val2014.zip": coco / "images/val2014",
    }
    local: dict[str, tuple[Archive, ...]] = {}
    for name, archives in SETS.items():
        for archive in archives:
            body = packed(archive.name, homes[archive.name], archive.top)
            server.files[archive.name] = body
            sources = (server.url("missing"), f"{server.url('published')}/{archive.name}")
            digest = hashlib.sha256(body).hexdigest()
            changed = replace(archive, size=len(body), sources=sources, sha256=digest, unpacked=0)
            local[name] = (*local.get(name, ()), changed)
    root = tmp_path / "fetched"
    for name in SETS:
        assert all(path.is_dir() for path in fetch(name, root, sets=local, say=lambda _: None))
    assert Voc(root, "train_aug").names == Voc(voc, "train_aug").names
    assert (Voc(root)[0].mask == Voc(voc)[0].mask).all()
    assert Coco(root).names == Coco(coco).names and Coco(root).image_path(0).is_file()
    for kind, source in (("voc", voc), ("coco", coco)):
        mine, theirs = check(root, kind), check(source, kind)
        assert mine.splits == theirs.splits and len(mine.problems) == len(theirs.problems)
        train = ["train", "lite_folder", "--data", "fetched", "--data.kind", kind, *TINY.split()]
        extra = ["--data.train-split", "train_aug"] if kind == "voc" else []
        assert cli.main([*train, *extra, "--data.labels", "masks", "--out", kind]) == 0
        json_file = f"{kind}.json"
        saved = ["--json", json_file, "--save", f"{kind}_masks"]
        assert cli.main(["evaluate", f"{kind}/model.safetensors", *saved]) == 0
        score = Score.from_dict(json.loads(Path(json_file).read_text()))
        val = (Voc if kind == "voc" else Coco)(root, "val")
        assert score.images == len(val) and len(score.confusion) == len(val.classes) + 1
        known = sum(int((val[i].mask != 255).sum()) for i in range(len(val)))
        assert sum(map(sum, score.confusion)) == known
        assert score.protocol.split == "val" and "val" in capsys.readouterr().out
        elsewhere = ["--data", str(voc if kind == "voc" else coco), "--json", "other.json"]
        assert cli.main(["evaluate", f"{kind}/model.safetensors", *elsewhere]) == 0
        there = Score.from_dict(json.loads(Path("other.json").read_text()))
        assert there.confusion == score.confusion and there.protocol == score.protocol
        again = evaluate_folder(f"{kind}_masks", val, score.protocol)
        assert again.confusion == score.confusion
    assert not list(root.glob("*.*"))  # neither archives nor parts are left


# Archives


def special(name, kind=None, **values):
    """A tar with one good file and one member of that kind."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        good = tarfile.TarInfo("top/good.txt")
        file.addfile(good)
        info = tarfile.TarInfo(name)
        info.type = kind or tarfile.REGTYPE
        for key, value in values.items():
            setattr(info, key, value)
        file.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (special("../escape.txt"), "would leave its folder"),
        (special("top/../../escape.txt"), "would leave its folder"),
        (special("/tmp/escape.txt"), "would leave its folder"),
        (special("top\\..\\escape.txt"), "would leave its folder"),
        (special("C:/escape.txt"), "would leave its folder"),
        (special("top/link", tarfile.SYMTYPE, linkname="/etc"), "is a link"),
        (special("top/link", tarfile.LNKTYPE, linkname="top/good.txt"), "is a link"),
        (special("top/null", tarfile.CHRTYPE), "is a device"),
        (special("top/pipe", tarfile.FIFOTYPE), "is a device"),
        (special("top/good.txt"), "two members"),
        (special("top/good.txt/below"), "two members"),
        (tar({"top/a": CONTENT}, "w:gz")[:-2000], "no sound archive"),
        (tar({"top/a": CONTENT})[:700_000], "no sound archive"),
        (b"neither tar nor zip" * 100, "no sound archive"),
        (tar({"other/a": b""}), "holds no files in top"),
    ],
)
def test_an_unsafe_or_damaged_archive_leaves_nothing(tmp_path, body, reason):
    path = tmp_path / "archive"
    path.write_bytes(body)
    with pytest.raises(FetchError, match=reason) as caught:
        unpack(path, tmp_path / "data/kit", "top")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*")) == ["archive", "data"]


def zipped(**members: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_an_unsafe_zip_leaves_nothing(tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(zipped(**{"top/a": "", "top/../../b": ""}))
    with pytest.raises(FetchError, match="would leave"):
        unpack(path, tmp_path / "kit", "top")
    assert os.listdir(tmp_path) == ["archive"]


def test_a_zip_and_a_compressed_tar_are_unpacked(tmp_path):
    body = zipped(**{"top/": "", "top/ä.txt": "text", "else/b": "no"})
    (tmp_path / "a.zip").write_bytes(body)
    unpack(tmp_path / "a.zip", tmp_path / "zip", "top")
    assert [(f.name, f.read_text()) for f in (tmp_path / "zip").iterdir()] == [("ä.txt", "text")]
    (tmp_path / "a.tgz").write_bytes(tar({"./top/b": b"text"}, "w:gz"))
    unpack(tmp_path / "a.tgz", tmp_path / "tgz", "top")
    assert (tmp_path / "tgz/b").read_bytes() == b"text"


def test_a_damaged_member_of_a_zip_leaves_nothing(tmp_path):
    body = bytearray(zipped(**{"top/a": "x" * 1000}))
    body[200] ^= 1
    (tmp_path / "a.zip").write_bytes(body)
    with pytest.raises(FetchError, match="no sound archive"):
        unpack(tmp_path / "a.zip", tmp_path / "zip", "top")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".kit.unpacking").mkdir()
    (tmp_path / ".kit.unpacking/old").write_text("half")
    (tmp_path / "a.tar").write_bytes(tar({"top/b": b"text"}))
    unpack(tmp_path / "a.tar", tmp_path / "kit", "top")
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()].count("old") == 0
    assert os.listdir(tmp_path / "kit") == ["b"]


def test_a_disk_that_cannot_hold_what_is_unpacked(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(ARCHIVE)
    usage = type(shutil.disk_usage(tmp_path))(10, 10, 1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FetchError, match=r"unpacking needs 1.0 MB, 1.0 kB are free"):
        unpack(tmp_path / "a.tar", tmp_path / "kit", "top/kit")
    assert os.listdir(tmp_path) == ["a.tar"]
