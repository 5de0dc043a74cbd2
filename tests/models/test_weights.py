"""Weights: found, verified, loaded, fetched on request - and nothing else."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torchvision.models import resnet50 as torchvision_resnet50

from wsss.errors import WeightsError
from wsss.models import download, offline, weights
from wsss.models.public_models import PublicModel
from wsss.models.resnet import resnet50
from wsss.models.resnet_small import resnet_small


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The switch off, whatever the environment says; put back afterwards."""
    before = {name: os.environ.get(name) for name in ("WSSS_OFFLINE", *offline._LIBRARY_VARIABLES)}
    was_offline = offline._state["offline"]
    offline.set_offline(False)
    yield
    offline.set_offline(was_offline)
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; understands ranges; can break off after some bytes."""

    content = b""
    breaks_after: int | None = None
    ranges = True
    requests: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range") if self.ranges else None
        type(self).requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(self.content) and wanted:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.content[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = type(self).breaks_after
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            type(self).breaks_after = None
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    handler = type("Handler", (Server,), {"requests": [], "content": bytes(range(256)) * 40})
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield handler, f"http://127.0.0.1:{served.server_port}/net-{digest(handler.content)[:8]}.pth"
    served.shutdown()
    served.server_close()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_missing_weights_name_the_command_that_gets_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match="`wsss weights fetch resnet50`"):
        weights.find_weights("resnet50")
    with pytest.raises(WeightsError, match="`wsss weights fetch owner/model`"):
        weights.find_weights("owner/model")
    with pytest.raises(WeightsError, match="`wsss weights fetch owner/model@v1`"):
        weights.find_weights("owner/model@v1")
    with pytest.raises(WeightsError, match="Did you mean `embedded`"):
        weights.find_weights("embeded")
    with pytest.raises(WeightsError, match="Correct the path"):
        weights.find_weights(tmp_path / "absent.pth")
    for name in ("weights/a1_ep-0001.params", "weights/vgg16_20M.caffemodel"):  # no Hugging Face ids
        with pytest.raises(WeightsError, match="Correct the path"):
            weights.find_weights(name)


def test_each_shipped_model_is_looked_for_in_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(weights, "EMBEDDED", tmp_path)
    with pytest.raises(WeightsError, match=r"shipped teacher is missing.*`wsss embedded train clip`"):
        weights.find_weights("embedded")
    with pytest.raises(WeightsError, match=r"question answerer is missing.*`wsss embedded train vqa`"):
        weights.find_weights("embedded", embedded="vqa")
    (tmp_path / "vqa").mkdir()
    (tmp_path / "vqa" / "config.json").touch()
    assert weights.find_weights("embedded", embedded="vqa") == tmp_path / "vqa"
    assert weights.find_weights(tmp_path, embedded="vqa") == tmp_path


def test_paths_and_fetched_imagenet_weights_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert weights.find_weights(tmp_path) == tmp_path
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / "resnet50-0676ba61.pth"
    file.parent.mkdir()
    file.touch()
    assert weights.find_weights("resnet50") == file


def test_digest_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    assert weights.sha256(tmp_path / "a") == digest(b"one")
    before = weights.sha256(tmp_path)
    (tmp_path / ".hidden").write_bytes(b"ignored")
    assert weights.sha256(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert weights.sha256(tmp_path) != before


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imagenet_weights_load_without_their_head(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    reference = torchvision_resnet50(weights=None, num_classes=3)
    path = tmp_path / f"net{suffix}"
    state = {k: v for k, v in reference.state_dict().items() if not k.endswith("num_batches_tracked")}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    net = resnet50(weights=path)
    for name, value in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert value.equal(state[name]), name


def test_a_method_checkpoint_gives_its_backbone(tmp_path: Path) -> None:
    net = resnet_small()
    state = {f"backbone.{k}": v for k, v in net.state_dict().items()} | {"classifier.weight": torch.zeros(1)}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    other = resnet_small(weights=tmp_path / "model.safetensors")
    assert all(value.equal(net.state_dict()[name]) for name, value in other.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file(resnet_small(output_stride=4).state_dict(), tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit ResNetSmall: missing.*surplus.*lateral"):
        resnet_small(weights=tmp_path / "small.safetensors")


def test_pickles_with_code_and_damaged_files_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": threading.Thread}, tmp_path / "code.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 not a zip")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"nothing")
    for name in ("code.pth", "cut.pth", "list.pth", "cut.safetensors"):
        with pytest.raises(WeightsError, match=name):
            weights.read_weights(tmp_path / name)


@pytest.mark.usefixtures("online")
def test_an_interrupted_download_goes_on_where_it_stopped(
    tmp_path: Path, server: tuple[type[Server], str]
) -> None:
    handler, url = server
    handler.breaks_after = 4000
    target, prefix = tmp_path / "cache" / "net.pth", digest(handler.content)[:8]
    with pytest.raises(WeightsError, match="goes on"):
        download.download(url, target, digest=f"sha256:{prefix}")
    assert not target.exists()
    calls: list[tuple[int, int]] = []
    download.download(
        url, target, digest=f"sha256:{prefix}", progress=lambda done, total, note: calls.append((done, total))
    )
    assert target.read_bytes() == handler.content
    assert handler.requests == [None, "bytes=4000-"]
    assert calls[-1] == (len(handler.content), len(handler.content))
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.usefixtures("online")
def test_a_server_without_ranges_starts_over_and_a_complete_part_is_enough(
    tmp_path: Path, server: tuple[type[Server], str]
) -> None:
    handler, url = server
    prefix = digest(handler.content)[:8]
    (tmp_path / "a.pth.part").write_bytes(handler.content)
    download.download(url, tmp_path / "a.pth", digest=f"sha256:{prefix}")
    (tmp_path / "b.pth.part").write_bytes(handler.content + b"more")
    download.download(url, tmp_path / "b.pth", digest=f"sha256:{prefix}")
    handler.ranges = False
    (tmp_path / "c.pth.part").write_bytes(b"of another server")
    download.download(url, tmp_path / "c.pth", digest=f"sha256:{prefix}")
    assert all((tmp_path / f"{name}.pth").read_bytes() == handler.content for name in "abc")


@pytest.mark.usefixtures("online")
def test_a_damaged_download_is_deleted_and_says_so(tmp_path: Path, server: tuple[type[Server], str]) -> None:
    with pytest.raises(WeightsError, match=r"is damaged: its SHA-256 must start with 00000000"):
        download.download(server[1], tmp_path / "net.pth", digest="sha256:00000000")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("online")
def test_fetch_puts_imagenet_weights_where_they_are_found(
    tmp_path: Path, server: tuple[type[Server], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(weights, "_imagenet_url", lambda name: server[1])
    path = weights.fetch("resnet50")
    assert weights.find_weights("resnet50") == path
    assert weights.fetch("resnet50") == path
    assert len(server[0].requests) == 1  # what is here and whole is not fetched again


@pytest.mark.usefixtures("online")
def test_fetch_knows_public_models_by_short_names_and_checks_their_digests(
    tmp_path: Path, server: tuple[type[Server], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = (hashlib.md5(text).hexdigest() for text in (server[0].content, b"other"))
    for name, found in (("good", right), ("bad", wrong)):
        model = PublicModel(name, "rembg", server[1], "saliency", "MIT", digest=f"md5:{found}")
        monkeypatch.setattr(weights, "PUBLIC_MODELS", {name: model})
        monkeypatch.setenv("U2NET_HOME", str(tmp_path / name))
        if name == "good":
            assert weights.fetch(name) == weights.find_weights(name)
            continue
        with pytest.raises(WeightsError, match=f"its MD5 must start with {wrong}; got another"):
            weights.fetch(name)
    asked: list[str] = []
    model = PublicModel("net", "huggingface", "owner/net", "teacher", "MIT")
    monkeypatch.setattr(weights, "PUBLIC_MODELS", {"net": model})
    monkeypatch.setattr(download, "_snapshot", lambda name, *_: asked.append(name) or tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert weights.fetch("net") == tmp_path
    assert asked == ["owner/net"]


@pytest.mark.usefixtures("online")
def test_a_repository_of_pickles_needs_consent_and_becomes_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[list[str]] = []

    def snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
        wanted.append(patterns)
        if any(pattern.endswith(".bin") for pattern in patterns):
            torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
        return tmp_path

    monkeypatch.setattr(download, "_snapshot", snapshot)
    with pytest.raises(WeightsError, match="--allow-pickle"):
        weights.fetch("owner/model")
    assert weights.fetch("owner/model", allow_pickle=True) == tmp_path
    assert safetensors.torch.load_file(tmp_path / "model.safetensors")["a"].equal(torch.ones(2))
    assert all(not pattern.endswith(".bin") for pattern in wanted[0])


def test_fetch_refuses_unknown_names_and_offline_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSSS_OFFLINE", "1")
    with pytest.raises(WeightsError, match="Did you mean `resnet50`"):
        weights.fetch("resnet5")
    with pytest.raises(WeightsError, match="WSSS_OFFLINE=1 forbids"):
        weights.fetch("resnet50")


@pytest.mark.usefixtures("online")
def test_the_switch_refuses_every_connection_that_leaves_the_machine(
    server: tuple[type[Server], str],
) -> None:
    import urllib.request

    import huggingface_hub.constants

    assert not weights.is_offline()
    weights.forbid_network()
    assert weights.is_offline()
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(WeightsError, match=r"connection to 192\.0\.2\.1 was refused"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(WeightsError, match=r"connection to example\.invalid was refused"):
        socket.getaddrinfo("example.invalid", 443)
    with urllib.request.urlopen(server[1], timeout=5) as answer:  # this machine itself may be reached
        assert answer.status == 200
    weights.set_offline(False)
    assert not weights.is_offline()
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
