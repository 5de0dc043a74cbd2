"""Where weights are: find, verify, load, and - only when asked - download them.

Nothing in the library downloads by itself. `find_weights` looks on this machine and otherwise names the
command that gets the file, `wsss weights fetch NAME`, which is `fetch`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from pickle import UnpicklingError  # what torch raises when a file holds more than tensors
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from wsss.checks import nearest
from wsss.errors import WeightsError
from wsss.models.offline import check_online, forbid_network, is_offline, set_offline
from wsss.training.checkpoint import TEMPORARY_PREFIX, load_state
from wsss.training.journal import Progress

__all__ = [
    "fetch",
    "find_weights",
    "forbid_network",
    "is_offline",
    "load_backbone_weights",
    "read_weights",
    "set_offline",
    "sha256",
]

IMAGENET: Final = ("resnet50", "resnet101")  # ImageNet weights, version 1, as torchvision publishes them
EMBEDDED: Final = Path(__file__).parent / "embedded"
Embedded = Literal["clip", "vqa", "saliency"]
_HUB_ID: Final = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")


def find_weights(name: str | Path, *, embedded: Embedded = "clip") -> Path:
    """The file or folder on this machine that `name` stands for.

    Args:
        name: an existing path; "embedded" (a shipped model); "resnet50" or "resnet101" (ImageNet); or a
            Hugging Face id, with `@revision` if wanted, that lies in the local cache.
        embedded: the shipped model that "embedded" means: "clip", the teacher, "vqa", which answers
            questions, or "saliency", which detects what stands out.

    Raises:
        WeightsError: it is not here; the message names the command that gets it.
    """
    text = str(name)
    path = Path(text).expanduser()
    if text == "embedded":
        return _embedded(embedded)
    if text in IMAGENET:
        return _imagenet(text)
    if path.exists():
        return path
    match = _HUB_ID.match(text)
    if match and not text.startswith(".") and path.suffix not in (".pth", ".pt", ".safetensors", ".bin"):
        return _cached_snapshot(match["id"], match["revision"])
    if path.is_absolute() or len(path.parts) > 1 or path.suffix:
        raise WeightsError(f"There are no weights at {text}. Correct the path.")
    raise WeightsError(
        f"Unknown weights `{text}`. {nearest(text, ('embedded', *IMAGENET))} "
        "A path or a Hugging Face id such as `owner/model` also works."
    )


def sha256(path: Path) -> str:
    """SHA-256 of a file, or of a folder (of its files' relative names and contents); hexadecimal."""
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            relative = file.relative_to(path)
            if not any(part.startswith((TEMPORARY_PREFIX, ".", "__pycache__")) for part in relative.parts):
                digest.update(f"{relative.as_posix()}\0{sha256(file)}\n".encode())
    else:
        with path.open("rb") as file_object:
            for block in iter(lambda: file_object.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def fetch(name: str, *, allow_pickle: bool = False, progress: Progress | None = None) -> Path:
    """Download weights into the usual cache of their kind; go on with an interrupted download.

    Args:
        name: "resnet50", "resnet101", or a Hugging Face id with `@revision` if wanted.
        allow_pickle: a repository that offers no safetensors file may be read from its pickle once
            (tensors only, no code); the result is stored as safetensors beside it.
        progress: called with bytes done and in all.

    Returns:
        The file or folder; `find_weights(name)` gives it from now on.

    Raises:
        WeightsError: offline, no such name, or a damaged or refused download.
    """
    from wsss.models.download import download, download_snapshot

    match = _HUB_ID.match(name)
    if name not in IMAGENET and match is None:
        raise WeightsError(
            f"Can't fetch `{name}`. {nearest(name, IMAGENET)} "
            "A Hugging Face id such as `owner/model` also works."
        )
    check_online(f"`wsss weights fetch {name}`")
    if match is None:
        url = _imagenet_url(name)
        target = _imagenet_folder() / url.rsplit("/", 1)[1]
        prefix = target.stem.rsplit("-", 1)[1]
        if target.is_file() and sha256(target).startswith(prefix):
            return target
        return download(url, target, sha256_prefix=prefix, progress=progress)
    return download_snapshot(match["id"], match["revision"], allow_pickle=allow_pickle, progress=progress)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors`, `.pth` or `.pt` file, on the CPU; never runs code from the file.

    Raises:
        WeightsError: missing, damaged, or more than plain tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return load_state(path)[0]
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}. Correct the path.")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(
            f"{path} is damaged or holds more than tensors ({type(error).__name__}). "
            "Use a file with a plain state dict."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} must hold named tensors; got {type(state).__name__}. Save a state dict.")
    return dict(state)


def load_backbone_weights(net: nn.Module, weights: str | Path) -> None:
    """Load a classifier's weights into a backbone without head; everything else must fit.

    Args:
        net: the backbone.
        weights: what `find_weights` understands; a file in torchvision's layout (the classifier `fc`, or
            `fc8` of VGG-16 and WideResNet-38, is left out), a state dict of the backbone, or of a model that
            holds it as `backbone`.

    Raises:
        WeightsError: missing file, or missing, surplus or differently shaped tensors.
    """
    path = find_weights(weights)
    state = read_weights(path)
    if any(name.startswith("backbone.") for name in state):
        state = {
            name.removeprefix("backbone."): value
            for name, value in state.items()
            if name.startswith("backbone.")
        }
    state = {name: value for name, value in state.items() if not name.startswith(("fc.", "fc8."))}
    own = {k: v.shape for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    missing = sorted(set(own) - set(state))
    surplus = sorted(set(state) - set(net.state_dict()))
    shapes = [name for name in own if name in state and state[name].shape != own[name]]
    if missing or surplus or shapes:
        raise WeightsError(
            f"{path} does not fit {type(net).__name__}: missing {missing[:3]}, surplus {surplus[:3]}, "
            f"other shapes {shapes[:3]}. Use weights of the same network under the same names."
        )
    net.load_state_dict(state, strict=False)  # counters of batches may be absent in old files


def _embedded(model: Embedded) -> Path:
    folder = EMBEDDED / model
    if not (folder / "config.json").is_file():
        role = {"clip": "teacher", "vqa": "question answerer", "saliency": "saliency detector"}[model]
        raise WeightsError(
            f"The shipped {role} is missing from this installation. "
            f"Install the package again, or make it with `wsss embedded train {model}`."
        )
    return folder


def _imagenet(name: str) -> Path:
    path = _imagenet_folder() / _imagenet_url(name).rsplit("/", 1)[1]
    if not path.is_file():
        raise WeightsError(
            f"The ImageNet weights of {name} are not on this machine (looked for {path}). "
            f"Get them with `wsss weights fetch {name}`, or give the path of a file."
        )
    return path


def _imagenet_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _imagenet_url(name: str) -> str:
    from torchvision.models import get_model_weights

    return str(get_model_weights(name)["IMAGENET1K_V1"].url)


def _cached_snapshot(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = repository if revision is None else f"{repository}@{revision}"
    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise WeightsError(
            f"`{name}` is neither a folder nor in the local Hugging Face cache. Get it with "
            f"`wsss weights fetch {name}`, or give the path of a folder that holds it."
        ) from error
