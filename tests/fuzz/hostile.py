"""Files made to do harm: code in pickles, bombs, and headers that lie."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

MARKER = "code-ran"
"""File that a payload makes in the working directory when its code runs."""


class Payload:
    """Unpickled, it leaves the marker."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (MARKER,))


def pickled() -> bytes:
    return pickle.dumps(Payload())


def torch_file() -> bytes:
    """A checkpoint with a tensor and a payload."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}, "epoch": Payload()}, buffer)
    return buffer.getvalue()


def object_npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def npz(**members: bytes) -> bytes:
    """A zip archive of given members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def arrays(**members: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def lying_npy(shape: str, dtype: str = "<f2") -> bytes:
    """An array's header that promises more than follows."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + b"\0" * 64


def safetensors_file(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file whose header says anything."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def png(
    width: int, height: int, rows: bytes, *, depth: int = 8, colour: int = 0, extra: bytes = b""
) -> bytes:
    """A PNG file of any header, correct checksums, and compressed `rows`."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def yaml_bomb() -> str:
    """One value of YAML: nine levels of nine references, 387 million words when written out."""
    levels = [f"&x0 [{', '.join(['lol'] * 9)}]"]
    levels += [f"&x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 9)]
    return f"[{', '.join(levels)}]"


def xml_bomb(name: str) -> str:
    """The same in XML."""
    lines = ['<!ENTITY x0 "lol">']
    lines += [f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 10)]
    named = f"<annotation><object><name>{name}&x9;</name></object></annotation>"
    return f'<?xml version="1.0"?><!DOCTYPE a [{"".join(lines)}]>{named}'


def tar(
    members: dict[str, bytes | str], *, kind: bytes = tarfile.REGTYPE, as_kind: bytes = tarfile.REGTYPE
) -> bytes:
    """A compressed archive; texts are targets of links of a kind, other members are of the kind `as_kind`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = kind, data
                archive.addfile(member)
            else:
                member.type, member.size = as_kind, len(data)
                archive.addfile(member, io.BytesIO(data))
        if as_kind != tarfile.REGTYPE:  # what the last one says more of
            archive.addfile(tarfile.TarInfo("results"))
    return buffer.getvalue()


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """All files of a folder by their relative path."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
