"""Weights by the place where they are; no test asks the real Hub."""

import errno
import hashlib
import json
import os
import re
import sys
from types import SimpleNamespace
from urllib.parse import quote

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import save

from fake_hub import COMMIT, asking, fake_hub
from keras_residual._errors import CheckpointError
from keras_residual.weights.hub import Checkpoint, download, open_location

pytestmark = pytest.mark.any_backend

REPO = "timm/resnet18.a1_in1k"
WEIGHTS = save({"fc.weight": np.ones((2, 3), np.float32)})
CONFIG = json.dumps({"architecture": "resnet18", "num_classes": 2}).encode()
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "README.md": b"# ResNet"}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch):
    with fake_hub(monkeypatch, REPO, dict(FILES)) as hub:
        yield hub


@pytest.fixture
def no_network(monkeypatch):
    """A port at which nobody listens."""
    with asking(monkeypatch, "http://127.0.0.1:9"):
        yield


def hash_of(name, content):
    """What the Hub calls the ETag: of large files their SHA-256, of others git's hash."""
    if not name.endswith(".json"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def write_cache(cache, files, *, repo_id=REPO, commit=COMMIT, absent=()):
    """Writes what huggingface_hub leaves in its cache and returns the folder of the commit."""
    folder = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for name, content in files.items():
        blob = folder / "blobs" / hash_of(name, content)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    for name in absent:
        (folder / ".no_exist" / commit).mkdir(parents=True, exist_ok=True)
        (folder / ".no_exist" / commit / name).touch()
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return snapshot


def refused(kind, message, call, *arguments, **options):
    with pytest.raises(kind, match=f"^{re.escape(message)}$") as caught:
        call(*arguments, **options)
    return caught.value


def not_there(cache, reason, name="model.safetensors", first="Check the network"):
    return (
        f"Checkpoint 'hf://{REPO}': {name} is not in the cache {cache}, or not whole, and could not be downloaded "
        f"({reason}). {first}, or get the files on another machine and give their folder."
    )


NOBODY = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"


# A place ------------------------------------------------------------------------------------------------------------


def test_a_file(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(WEIGHTS)
    found = open_location(path)
    assert (found.config, list(found.tensors), found.source) == (None, ["fc.weight"], str(path))


@pytest.mark.parametrize("names", [["model.safetensors", "pytorch_model.bin"], ["pytorch_model.bin"]])
@pytest.mark.parametrize("with_config", [True, False])
def test_a_folder(tmp_path, names, with_config):
    for name in names:
        if name.endswith(".bin"):
            torch.save({"state_dict": {"old.weight": torch.ones(1)}}, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(WEIGHTS)
    if with_config:
        (tmp_path / "config.json").write_bytes(CONFIG)
    found = open_location(str(tmp_path))
    assert list(found.tensors) == (["fc.weight"] if "model.safetensors" in names else ["old.weight"])
    assert found.config == (json.loads(CONFIG) if with_config else None)
    assert found.source == str(tmp_path)


def test_averaged_weights(tmp_path):
    torch.save({"model": {"w": torch.ones(1)}, "model_ema": {"w": torch.ones(2)}}, tmp_path / "pytorch_model.bin")
    for place in (tmp_path, tmp_path / "pytorch_model.bin"):
        assert open_location(place, ema=True).tensors["w"].shape == (2,)


@pytest.mark.parametrize(("files", "held"), [([], "nothing"), (["b.txt", "a.txt"], "a.txt, b.txt")])
def test_a_folder_without_weights(tmp_path, files, held):
    for name in files:
        (tmp_path / name).touch()
    message = (
        f"Checkpoint {str(tmp_path)!r}: the folder holds neither model.safetensors nor pytorch_model.bin, but {held}. "
        "Give the file that holds the weights."
    )
    refused(CheckpointError, message, open_location, tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"architecture": ', "it is no JSON (Expecting value: line 1 column 18 (char 17))"),
        (b"[1]", "it must hold a single JSON object"),
    ],
)
def test_a_folder_with_a_damaged_configuration(tmp_path, content, what):
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "config.json").write_bytes(content)
    message = f"Checkpoint {str(tmp_path / 'config.json')!r}: {what}. Correct it, or delete it and get it again."
    refused(CheckpointError, message, open_location, tmp_path)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no/such/file.pth", "Checkpoint 'no/such/file.pth': there is no such file. Check the path."),
        (
            REPO,
            f"Checkpoint '{REPO}': there is no such file or folder. "
            f"For the repository of the Hugging Face Hub give hf://{REPO}.",
        ),
        (
            "https://example.org/w.pth",
            "Checkpoint 'https://example.org/w.pth': addresses of this kind are not read. "
            "Download the file and give its path.",
        ),
    ],
)
def test_no_place(place, message):
    refused(CheckpointError, message, open_location, place)


@pytest.mark.parametrize("place", ["hf://", "hf://name", "hf://a/b/c", "hf://a/b@", "hf://../b", "hf://a/b c"])
def test_no_repository(place):
    message = (
        f"open_location: `location` must be hf://owner/name or hf://owner/name@revision, but received {place!r} (str)."
    )
    refused(ValueError, message, open_location, place)


# What is cached ----------------------------------------------------------------------------------------------------


def test_a_cached_repository_needs_no_network(cache, no_network):
    snapshot = write_cache(cache, FILES)
    assert download(REPO, cache_dir=cache) == snapshot
    assert download(REPO, cache_dir=cache, revision=COMMIT) == snapshot
    assert download(REPO, cache_dir=cache, filenames=["README.md"]) == snapshot
    for place in (f"hf://{REPO}", f"hf://{REPO}@main", f"hf://{REPO}@{COMMIT}"):
        found = open_location(place, cache_dir=cache)
        assert isinstance(found, Checkpoint)
        assert (found.config, list(found.tensors)) == (json.loads(CONFIG), ["fc.weight"])
        assert found.source == f"hf://{REPO}@{COMMIT}"


def test_a_cached_repository_is_not_asked_for(cache, hub):
    write_cache(cache, FILES)
    download(REPO, cache_dir=cache)
    assert hub.requests == []


def test_what_the_repository_lacks_is_cached_too(cache, no_network, tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "w.bin")
    files = {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()}
    write_cache(cache, files, absent=["model.safetensors", "config.json"])
    found = open_location(f"hf://{REPO}", cache_dir=cache)
    assert (found.config, list(found.tensors)) == (None, ["w"])


def test_weights_of_the_second_choice_will_do_without_a_network(cache, no_network):
    snapshot = write_cache(cache, {"config.json": CONFIG, "pytorch_model.bin": b"\x80"})
    assert download(REPO, cache_dir=cache) == snapshot


def test_the_settings_of_huggingface_hub_are_heeded(cache, hub, monkeypatch):
    write_cache(cache, FILES)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_location(f"hf://{REPO}").config == json.loads(CONFIG)
    assert hub.requests == []


# The download ------------------------------------------------------------------------------------------------------


def test_it_downloads_once_and_what_it_needs(cache, hub, capfd):
    found = open_location(f"hf://{REPO}", cache_dir=cache)
    assert (found.config, list(found.tensors)) == (json.loads(CONFIG), ["fc.weight"])
    asked = list(hub.requests)
    assert [name for method, name in asked if method == "GET"] == ["model.safetensors", "config.json"]
    open_location(f"hf://{REPO}", cache_dir=cache)
    assert hub.requests == asked
    assert capfd.readouterr() == ("", ""), "nothing is shown without a terminal"


def test_it_takes_the_pickle_and_no_configuration_where_there_is_nothing_else(cache, hub, tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "w.bin")
    hub.files = {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()}
    found = open_location(f"hf://{REPO}", cache_dir=cache)
    assert (found.config, list(found.tensors)) == (None, ["w"])
    asked = list(hub.requests)
    assert download(REPO, cache_dir=cache).name == COMMIT
    assert hub.requests == asked


def test_named_files(cache, hub):
    hub.files["onnx/model.onnx"] = b"onnx"
    folder = download(REPO, filenames=["onnx/model.onnx", "README.md"], cache_dir=cache)
    assert (folder / "onnx" / "model.onnx").read_bytes() == b"onnx"
    assert (folder / "README.md").read_bytes() == b"# ResNet"
    assert not (folder / "config.json").exists()
    assert download(REPO, filenames=["onnx/model.onnx"], cache_dir=cache) == folder


def test_all_files_are_of_one_commit(cache, hub):
    old, new = "b" * 40, COMMIT
    write_cache(cache, {"config.json": b'{"old": 1}'}, commit=old)
    folder = download(REPO, cache_dir=cache)
    assert folder.name == new
    assert (folder / "config.json").read_bytes() == CONFIG


def test_a_branch_may_move_on_between_two_files(cache, hub, monkeypatch):
    fetch = huggingface_hub.hf_hub_download

    def fetch_and_move_on(*arguments, **options):
        path = fetch(*arguments, **options)
        hub.commits.append(f"{len(hub.commits):040x}")
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch_and_move_on)
    folder = download(REPO, cache_dir=cache)
    assert folder.name == COMMIT
    assert {entry.name for entry in folder.iterdir()} == {"config.json", "model.safetensors"}


# Errors ------------------------------------------------------------------------------------------------------------


def test_no_network_and_nothing_cached(cache, no_network):
    refused(ConnectionError, not_there(cache, NOBODY), open_location, f"hf://{REPO}", cache_dir=cache)


def test_no_network_and_half_of_it_cached(cache, no_network):
    write_cache(cache, {"config.json": CONFIG})
    refused(ConnectionError, not_there(cache, NOBODY), download, REPO, cache_dir=cache)


def test_the_hub_is_forbidden(cache, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    message = not_there(cache, "HF_HUB_OFFLINE is set", first="Unset it")
    refused(ConnectionError, message, download, REPO, cache_dir=cache)
    assert hub.requests == []


def test_the_hub_is_down(cache, hub):
    hub.status = 503
    with pytest.raises(ConnectionError, match=r"could not be downloaded \(.*503.*\)\. Check the network"):
        download(REPO, cache_dir=cache)


def test_a_network_that_is_forbidden_is_no_disk_that_is(cache, monkeypatch):
    def fail(*_, **__):
        try:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        except PermissionError as error:
            raise LocalEntryNotFoundError("An error happened") from error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    message = not_there(cache, f"[Errno {errno.EPERM}] Operation not permitted")
    refused(ConnectionError, message, download, REPO, cache_dir=cache)


def test_no_such_repository(cache, hub):
    message = (
        "Checkpoint 'hf://timm/resnet81': there is no such repository, or it is private. Check the name at "
        "https://huggingface.co/timm/resnet81; if it is private, log in with `hf auth login` or set HF_TOKEN."
    )
    refused(CheckpointError, message, open_location, "hf://timm/resnet81", cache_dir=cache)


def test_no_such_revision(cache, hub):
    message = (
        f"Checkpoint 'hf://{REPO}': the repository has no revision 'v2'. "
        f"See https://huggingface.co/{REPO}/commits/main for its branches, tags and commits."
    )
    refused(CheckpointError, message, open_location, f"hf://{REPO}@v2", cache_dir=cache)


@pytest.mark.parametrize(
    ("filenames", "names"), [(None, "model.safetensors and no pytorch_model.bin"), (["model.onnx"], "model.onnx")]
)
def test_no_such_file(cache, hub, filenames, names):
    hub.files = {"config.json": CONFIG}
    message = (
        f"Checkpoint 'hf://{REPO}': the repository has no {names} at revision 'main'. "
        f"See https://huggingface.co/{REPO}/tree/main for what it has."
    )
    refused(CheckpointError, message, download, REPO, filenames=filenames, cache_dir=cache)


def test_gated(cache, hub):
    hub.gated = True
    message = (
        f"Checkpoint 'hf://{REPO}': access to the repository is restricted. "
        f"Ask for it at https://huggingface.co/{REPO}, then log in with `hf auth login` or set HF_TOKEN."
    )
    refused(CheckpointError, message, download, REPO, cache_dir=cache)


@pytest.mark.parametrize("repo_id", ["name", "a/b/c", "a/", "../b"])
def test_no_repo_id(repo_id):
    message = f"download: `repo_id` must be 'owner/name', but received {repo_id!r} (str)."
    refused(ValueError, message, download, repo_id)


def fill_the_disk(patch, error):
    """Lets each download end in the middle of the file."""

    def write_half(url, temp_file, **_):
        temp_file.write(WEIGHTS[: len(WEIGHTS) // 2])
        temp_file.flush()
        raise error

    patch.setattr("huggingface_hub.file_download.http_get", write_half)


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["no space", "quota", "hf_xet"])
def test_the_disk_fills(cache, hub, monkeypatch, error):
    hub.files["model.safetensors"] = save({"fc.weight": np.ones(500_000, np.float32)})
    number = getattr(error, "errno", errno.ENOSPC)
    message = (
        f"[Errno {number}] Checkpoint 'hf://{REPO}': the disk is full: model.safetensors does not fit into the 12.3 "
        f"MB that are free in {cache}. Make room there, or choose another folder: `cache_dir` or the environment "
        "variable HF_HUB_CACHE."
    )
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=12_300_000))
        fill_the_disk(patch, error)
        caught = refused(OSError, message, download, REPO, cache_dir=cache)
    assert caught.errno == number
    hub.status = 503
    with pytest.raises(ConnectionError):
        download(REPO, cache_dir=cache)  # what is half there is not taken for the whole
    hub.status = None
    assert list(open_location(f"hf://{REPO}", cache_dir=cache).tensors) == ["fc.weight"]


def test_a_cache_that_cannot_be_written_to(cache, hub, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    message = (
        f"[Errno {errno.EROFS}] Checkpoint 'hf://{REPO}': the cache {cache} cannot be written to. "
        "Make it writable, or choose another folder: `cache_dir` or the environment variable HF_HUB_CACHE."
    )
    refused(OSError, message, download, REPO, cache_dir=cache)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def lose(path):
    path.resolve().unlink()


def leave_incomplete(path):
    path.resolve().rename(path.resolve().with_name("etag.1234.incomplete"))


@pytest.mark.parametrize("damage", [cut, lose, leave_incomplete])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_cache_that_is_half_written(cache, hub, monkeypatch, damage, name):
    damage(download(REPO, cache_dir=cache) / name)
    hub.requests.clear()
    with asking(monkeypatch, "http://127.0.0.1:9"):
        refused(ConnectionError, not_there(cache, NOBODY, name), download, REPO, cache_dir=cache)
    found = open_location(f"hf://{REPO}", cache_dir=cache)
    assert (found.config, list(found.tensors)) == (json.loads(CONFIG), ["fc.weight"])
    assert [asked for method, asked in hub.requests if method == "GET"] == [name]


# What is stated and what is there -----------------------------------------------------------------------------------


def flip(path):
    blob = path.resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_in_the_cache_that_has_changed_is_got_again(cache, hub, monkeypatch, name):
    flip(download(REPO, cache_dir=cache) / name)
    hub.requests.clear()
    with asking(monkeypatch, "http://127.0.0.1:9"):
        refused(ConnectionError, not_there(cache, NOBODY, name), download, REPO, cache_dir=cache)
    folder = download(REPO, cache_dir=cache)
    assert (folder / name).read_bytes() == FILES[name]
    assert [asked for method, asked in hub.requests if method == "GET"] == [name]


@pytest.mark.parametrize("length", [40, 64])
def test_a_download_that_is_not_what_was_stated_is_refused_and_not_kept(cache, hub, length):
    hub.etags["model.safetensors"] = ["0" * length]
    message = (
        f"Checkpoint 'hf://{REPO}': model.safetensors is not what the Hub states: its hash is another one. "
        "Nothing of it was kept. Is HF_ENDPOINT, or a proxy, one that you trust?"
    )
    for _ in range(2):
        refused(CheckpointError, message, open_location, f"hf://{REPO}", cache_dir=cache)
        assert WEIGHTS not in [path.read_bytes() for path in cache.rglob("*") if path.is_file()]
    del hub.etags["model.safetensors"]
    assert list(open_location(f"hf://{REPO}", cache_dir=cache).tensors) == ["fc.weight"]


def test_gits_hash_of_a_small_file_is_compared_too(cache, hub):
    hub.etags["config.json"] = [hash_of("config.json", CONFIG)]
    assert open_location(f"hf://{REPO}", cache_dir=cache).config == json.loads(CONFIG)
    hub.sent["README.md"] = b"# Resnet"
    hub.etags["README.md"] = [hash_of("a.json", FILES["README.md"])]
    with pytest.raises(CheckpointError, match=r"README\.md is not what the Hub states"):
        download(REPO, filenames=["README.md"], cache_dir=cache)


PATHS = [
    "../../../../outside",
    "/{outside}",
    "..",
    "a/../../../outside",
    "..\\outside",
    "a" * 39 + "/",
    "A" * 40,
    "x",
]


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("turn", [1, 2])
def test_an_etag_that_is_a_path_writes_nothing(tmp_path, hub, path, turn):
    cache, outside = tmp_path / "a" / "b" / "cache", tmp_path / "outside"
    path = path.format(outside=outside)
    # At first what the file is: a server may answer one thing and then another.
    hub.etags["model.safetensors"] = [hash_of("w", WEIGHTS)] * (turn - 1) + [path]
    if turn == 2:
        download(REPO, cache_dir=cache)
        flip(next(cache.rglob("model.safetensors")))
    with pytest.raises(CheckpointError) as caught:
        download(REPO, cache_dir=cache)
    assert f"the Hub states the hash {path!r}, which is none. Nothing of it was kept." in str(caught.value)
    assert {entry for entry in everything(tmp_path) if not entry.startswith("a/b/cache")} <= {"a", "a/b"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("missing", [False, True])
def test_a_commit_that_is_a_path_writes_nothing(tmp_path, hub, path, missing):
    cache, outside = tmp_path / "a" / "b" / "cache", tmp_path / "outside"
    path = path.format(outside=outside)
    hub.commit_header = path
    if missing:
        hub.files.clear()
    with pytest.raises(CheckpointError, match="the Hub answers with the commit"):
        download(REPO, cache_dir=cache)
    assert [entry for entry in everything(tmp_path) if not entry.startswith("a")] == []
    assert not any(path.is_file() for path in cache.rglob("*"))


def test_huggingface_hub_is_left_as_it_was(cache, hub):
    from huggingface_hub import file_download

    ask = file_download.get_hf_file_metadata
    download(REPO, cache_dir=cache)
    hub.etags["README.md"] = [".."]
    with pytest.raises(CheckpointError):
        download(REPO, filenames=["README.md"], cache_dir=cache)
    assert file_download.get_hf_file_metadata is ask


@pytest.mark.parametrize("revision", ["../x", "a/../../b", "/etc", "a//b", ".hidden", "", "a b", "x" * 10 + "\x1b"])
def test_a_revision_that_is_a_path_is_refused(cache, revision):
    with pytest.raises(
        ValueError, match=r"^download: `revision` must be the name of a branch, tag or commit"
    ) as caught:
        download(REPO, revision=revision, cache_dir=cache)
    assert str(caught.value).isprintable()
    with pytest.raises(ValueError, match=r"^open_location: `location` must be hf://owner/name"):
        open_location(f"hf://{REPO}@{revision}", cache_dir=cache)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..\\x"])
def test_a_file_name_that_leads_out_is_refused(cache, name):
    with pytest.raises(ValueError, match=r"^download: `filenames` must be paths within the repository, but received"):
        download(REPO, filenames=["config.json", name], cache_dir=cache)


@pytest.mark.parametrize("revision", ["main", "refs/pr/1", "v1.0", COMMIT])
def test_usual_revisions_are_taken(cache, hub, revision):
    hub.commits.append(quote(revision, safe=""))
    hub.commit_header = COMMIT
    assert download(REPO, revision=revision, cache_dir=cache).name == COMMIT


def test_a_link_out_of_the_cache_is_not_followed(tmp_path, cache, no_network):
    snapshot = write_cache(cache, FILES)
    (tmp_path / "secret.json").write_text("{}")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "secret.json")
    refused(ConnectionError, not_there(cache, NOBODY, "config.json"), open_location, f"hf://{REPO}", cache_dir=cache)


def test_a_branch_in_the_cache_that_is_no_commit_is_not_followed(tmp_path, cache, no_network):
    snapshot = write_cache(cache, FILES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.safetensors").write_bytes(WEIGHTS)
    (snapshot.parents[1] / "refs" / "main").write_text(os.path.relpath(elsewhere, snapshot.parent))
    with pytest.raises(
        ConnectionError, match=r"model\.safetensors is not in the cache .*, and could not be downloaded"
    ):
        open_location(f"hf://{REPO}", cache_dir=cache)


def test_a_cache_without_links_is_read(cache, no_network):
    snapshot = write_cache(cache, FILES)
    for name in FILES:
        content = (snapshot / name).read_bytes()
        (snapshot / name).unlink()
        (snapshot / name).write_bytes(content)
    assert list(open_location(f"hf://{REPO}", cache_dir=cache).tensors) == ["fc.weight"]


@pytest.mark.parametrize("config", [b'{"a":' * 100_000, b'{"a": 1, "a": 2}', b"\xff", b"[" + b"9" * 5000 + b"]"])
def test_a_configuration_of_the_hub_that_nobody_means(cache, hub, config):
    hub.files["config.json"] = config
    with pytest.raises(CheckpointError, match=r"config\.json': .+\. Correct it, or delete it") as caught:
        open_location(f"hf://{REPO}", cache_dir=cache)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("place", ["~nobody_of_this_name/w.pth", "a\0b", "x" * 5000, "y/" * 3000, "/dev/null"])
def test_places_that_are_no_files(place):
    with pytest.raises(CheckpointError) as caught:
        open_location(place)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_huggingface_hub_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = (
        "'huggingface_hub' is not installed. This feature of keras-residual needs it: pip install 'keras-residual[hub]'"
    )
    refused(ImportError, message, open_location, f"hf://{REPO}")
