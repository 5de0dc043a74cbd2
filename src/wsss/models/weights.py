"""Where weights are: find, verify, load, and - only when asked - download them.

Nothing in the library downloads by itself. `find_weights` looks on this machine and otherwise names the
command that gets the file, `wsss weights fetch NAME`, which is `fetch`. Formats are read by `weight_formats`,
names are translated by `weight_names`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor, nn

from wsss.checks import nearest
from wsss.errors import WeightsError
from wsss.models.offline import check_online, forbid_network, is_offline, set_offline
from wsss.models.public_models import PUBLIC_MODELS, PublicModel
from wsss.models.weight_formats import SUFFIXES, read_weights, read_with_metadata
from wsss.models.weight_names import DEEPLAB, NamedWeights, named_weights
from wsss.training.checkpoint import TEMPORARY_PREFIX
from wsss.training.journal import Progress

__all__ = [
    "NamedWeights",
    "backbone_state",
    "fetch",
    "find_weights",
    "forbid_network",
    "is_offline",
    "load_backbone_weights",
    "misfit",
    "read_weights",
    "set_offline",
    "sha256",
]

EMBEDDED: Final = Path(__file__).parent / "embedded"
Embedded = Literal["clip", "vqa", "saliency"]
_HUB_ID: Final = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?$")


def find_weights(name: str | Path, *, embedded: Embedded = "clip") -> Path:
    """The file or folder on this machine that `name` stands for.

    Args:
        name: an existing path; "embedded" (a shipped model); one of `PUBLIC_MODELS`, such as "resnet50"
            (ImageNet) or "clip-vit-b32"; or a Hugging Face id in the local cache, with `@revision` if wanted.
        embedded: the shipped model that "embedded" means: "clip", the teacher, "vqa", which answers
            questions, or "saliency", which detects what stands out.

    Raises:
        WeightsError: it is not here; the message names the command that gets it.
    """
    text = str(name)
    path = Path(text).expanduser()
    if text == "embedded":
        return _embedded(embedded)
    if text in PUBLIC_MODELS:
        return _public(PUBLIC_MODELS[text])
    if path.exists():
        return path
    match = _HUB_ID.match(text)
    if match and not text.startswith(".") and path.suffix not in SUFFIXES:
        return _cached_snapshot(match["id"], match["revision"])
    if path.is_absolute() or len(path.parts) > 1 or path.suffix:
        raise WeightsError(f"There are no weights at {text}. Correct the path.")
    raise WeightsError(
        f"Unknown weights `{text}`. {nearest(text, ('embedded', *PUBLIC_MODELS))} "
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
        name: one of `PUBLIC_MODELS`, or a Hugging Face id with `@revision` if wanted.
        allow_pickle: a repository that offers no safetensors file may be read from its pickle once
            (tensors only, no code); the result is stored as safetensors beside it.
        progress: called with bytes done and in all.

    Returns:
        The file or folder; `find_weights(name)` gives it from now on.

    Raises:
        WeightsError: offline, no such name, or a damaged or refused download.
    """
    from wsss.models.download import download, download_snapshot, has_digest

    model = PUBLIC_MODELS.get(name)
    is_file = model is not None and model.source != "huggingface"
    match = _HUB_ID.match(model.identifier if model is not None else name)
    if not is_file and match is None:
        raise WeightsError(
            f"Can't fetch `{name}`. {nearest(name, PUBLIC_MODELS)} "
            "A Hugging Face id such as `owner/model` also works."
        )
    check_online(f"`wsss weights fetch {name}`")
    if not is_file:
        assert match is not None
        return download_snapshot(match["id"], match["revision"], allow_pickle=allow_pickle, progress=progress)
    assert model is not None
    url, target, digest = _address(model), _file(model), _digest(model)
    if target.is_file() and has_digest(target, digest):
        return target
    return download(url, target, digest=digest, progress=progress)


def backbone_state(weights: str | Path, network: str | None = None) -> NamedWeights:
    """The backbone that a weights file holds, under our names, and how its images must look.

    Args:
        weights: what `find_weights` understands; a file of any known format and layout, see `weight_names`.
        network: the backbone that takes them; "resnet101_deeplab" and "vgg16" take torchvision's renamed.

    Raises:
        WeightsError: missing or damaged, or of an unknown network of mxnet or caffe.
    """
    state, metadata = read_with_metadata(find_weights(weights))
    return named_weights(state, network, metadata)


def misfit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What keeps weights from a network: names that are missing or too much, and other shapes; "" if nothing.

    Args:
        found: tensors under the network's names.
        wanted: the network's own; its counters of batches may be absent, as in files of old programs.
    """
    own = {name: value.shape for name, value in wanted.items() if not name.endswith("num_batches_tracked")}
    missing = sorted(set(own) - set(found))
    surplus = sorted(set(found) - set(wanted))
    shapes = [name for name in own if name in found and found[name].shape != own[name]]
    if not (missing or surplus or shapes):
        return ""
    return f"missing {missing[:3]}, surplus {surplus[:3]}, other shapes {shapes[:3]}"


def load_backbone_weights(net: nn.Module, weights: str | Path) -> NamedWeights:
    """Load published or own weights into a backbone without head; everything but heads must fit.

    Args:
        net: the backbone.
        weights: what `find_weights` understands; a file of any format and layout that `weight_names` lists, a
            state dict of the backbone, or of a model that holds it as `backbone`.

    Returns:
        What was loaded; says which images the weights want and where their strides lie, as far as known.

    Raises:
        WeightsError: missing file, or missing, surplus or differently shaped tensors.
    """
    own = net.state_dict()
    marks = {"layer1.conv1.conv.weight": DEEPLAB, "conv1_1.weight": "vgg16"}
    network = next((name for mark, name in marks.items() if mark in own), None)
    named = backbone_state(weights, network)
    problem = misfit(named.state, own)
    if problem:
        raise WeightsError(
            f"{find_weights(weights)} does not fit {type(net).__name__}: {problem}. "
            f"{named.note or 'Use weights of the same network under the same names.'}"
        )
    net.load_state_dict(named.state, strict=False)  # counters of batches may be absent in old files
    return named


def _embedded(model: Embedded) -> Path:
    folder = EMBEDDED / model
    if not (folder / "config.json").is_file():
        role = {"clip": "teacher", "vqa": "question answerer", "saliency": "saliency detector"}[model]
        raise WeightsError(
            f"The shipped {role} is missing from this installation. "
            f"Install the package again, or make it with `wsss embedded train {model}`."
        )
    return folder


def _public(model: PublicModel) -> Path:
    """A public model on this machine."""
    if model.source == "huggingface":
        return _cached_snapshot(model.identifier, None)
    path = _file(model)
    if not path.is_file():
        what = "ImageNet weights" if model.source == "torchvision" else "weights"
        raise WeightsError(
            f"The {what} of {model.name} are not on this machine (looked for {path}). "
            f"Get them with `wsss weights fetch {model.name}`, or give the path of a file."
        )
    return path


def _file(model: PublicModel) -> Path:
    """Where the file of a model of torchvision or rembg belongs."""
    file = _address(model).rsplit("/", 1)[1]
    if model.source == "torchvision":
        return Path(torch.hub.get_dir()) / "checkpoints" / file
    home = os.environ.get("U2NET_HOME") or Path(os.environ.get("XDG_DATA_HOME") or "~") / ".u2net"
    return Path(home).expanduser() / file


def _address(model: PublicModel) -> str:
    return _imagenet_url(model.identifier) if model.source == "torchvision" else model.identifier


def _digest(model: PublicModel) -> str:
    """Files of torchvision carry the first digits of their SHA-256 in their names."""
    if model.source != "torchvision":
        return model.digest
    return f"sha256:{Path(_address(model)).stem.rsplit('-', 1)[1]}"


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
