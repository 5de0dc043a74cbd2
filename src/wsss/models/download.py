"""Downloads on request: one file by its address, or a Hugging Face repository; interrupted ones go on."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from wsss.errors import WeightsError
from wsss.training.checkpoint import atomic_path, write_tensors
from wsss.training.journal import Progress

BLOCK: Final = 1 << 20  # bytes
TIMEOUT: Final = 60  # seconds without an answer
_KINDS: Final = {"sha256": "SHA-256", "md5": "MD5"}
_FILES: Final = ["*.json", "*.txt", "*.model", "*.safetensors"]
_PICKLES: Final = ["pytorch_model*.bin", "pytorch_model*.json"]


def download(url: str, target: Path, *, digest: str, progress: Progress | None = None) -> Path:
    """Download `url` to `target`; what an earlier attempt got (`target`.part) is not fetched again.

    Args:
        url: the file's address.
        target: final name; it appears only when complete and verified.
        digest: "sha256:" or "md5:" and the first hexadecimal digits of the file's digest.
        progress: called with bytes done and in all (0: unknown).

    Raises:
        WeightsError: the server can't be reached or refuses, the connection broke, or the digest differs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        _receive(url, part, progress)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise WeightsError(
            f"The download of {target.name} stopped ({error}). Run the same command again: it goes on."
        ) from error
    if not has_digest(part, digest):
        kind, _, begin = digest.partition(":")
        part.unlink()
        raise WeightsError(
            f"The download of {target.name} is damaged: its {_KINDS[kind]} must start with {begin}; got "
            "another. It was deleted; run the same command again."
        )
    part.replace(target)
    return target


def has_digest(path: Path, digest: str) -> bool:
    """Whether a file's digest begins as `digest` says, "sha256:" or "md5:" and hexadecimal digits."""
    kind, _, begin = digest.partition(":")
    found = hashlib.new(kind, usedforsecurity=False)  # md5 tells a damaged file, not a forged one
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            found.update(block)
    return found.hexdigest().startswith(begin)


def _receive(url: str, part: Path, progress: Progress | None) -> None:
    """Append to `part` what is missing; start over where the server can't continue."""
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is left to send, or the part is longer than the file
            raise
        if _range_total(error) == done:
            return
        part.unlink()
        _receive(url, part, progress)
        return
    with answer:
        if answer.status != 206:
            done = 0
        total = done + int(answer.headers.get("Content-Length", 0))
        with part.open("ab" if done else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total, part.stem)
    if total and done < total:
        raise OSError(f"{done:,} of {total:,} bytes came")


def _range_total(error: urllib.error.HTTPError) -> int | None:
    total = error.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def download_snapshot(
    repository: str, revision: str | None, *, allow_pickle: bool, progress: Progress | None = None
) -> Path:
    """Download configuration, tokenizer and safetensors weights of a Hugging Face repository into its cache.

    Raises:
        WeightsError: no such repository or revision, no network, or weights as pickle only.
    """
    name = repository if revision is None else f"{repository}@{revision}"
    if progress is not None:
        progress(0, 1, name)
    folder = _snapshot(repository, revision, _FILES)
    if not list(folder.glob("*.safetensors")):
        if not allow_pickle:
            raise WeightsError(
                f"`{name}` offers its weights as pickle only, which can run foreign code. Use a revision "
                f"with safetensors (`{repository}@REVISION`), or `wsss weights fetch {name} "
                "--allow-pickle`: its tensors alone are read, once, and stored as safetensors."
            )
        folder = _snapshot(repository, revision, [*_FILES, *_PICKLES])
        convert_pickles(folder)
    if progress is not None:
        progress(1, 1, name)
    return folder


def convert_pickles(folder: Path) -> Path:
    """Store the tensors of a folder's `pytorch_model*.bin` files as `model.safetensors` beside them.

    Raises:
        WeightsError: there is none, or it holds more than tensors.
    """
    from wsss.models.weights import read_weights

    shards = sorted(folder.glob("pytorch_model*.bin"))
    if not shards:
        raise WeightsError(f"{folder} holds no weights. Use a repository with a PyTorch model.")
    tensors: dict[str, Any] = {}
    for shard in shards:
        tensors |= {name: value.clone().contiguous() for name, value in read_weights(shard).items()}
    target = folder / "model.safetensors"
    with atomic_path(target) as temporary:
        write_tensors(temporary, tensors, {"format": "pt"})
    return target


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]
        )
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"`{repository}` could not be fetched ({reason}). Check the name, the revision and the network; "
            "run the same command again to go on."
        ) from error
    return Path(folder)
