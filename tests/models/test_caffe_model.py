"""Files of caffe: layers of both generations come back, and nothing damaged is believed."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from models.weight_files import (
    caffe_blob,
    caffe_layer,
    caffe_v1_layer,
    message,
    number,
    varint,
    write_caffe,
)
from wsss.errors import WeightsError
from wsss.models.caffe_model import read_caffe_model


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("packed", [True, False])
def test_layers_of_today_come_back_with_their_types_and_shapes(tmp_path: Path, packed: bool) -> None:
    weight, bias, factor = values(4, 3, 3, 3), values(4), values(1)
    path = write_caffe(
        tmp_path / "net.caffemodel",
        [
            caffe_layer("data", "Input", []),
            caffe_layer("conv1", "Convolution", [weight, bias], packed=packed),
            caffe_layer("bn", "BatchNorm", [factor.astype(np.float64)], packed=packed),
        ],
    )
    conv, norm = read_caffe_model(path)
    assert (conv.name, conv.type, norm.name, norm.type) == ("conv1", "Convolution", "bn", "BatchNorm")
    assert np.array_equal(conv.blobs[0], weight)
    assert np.array_equal(conv.blobs[1], bias)
    assert norm.blobs[0].dtype == np.float64
    assert np.array_equal(norm.blobs[0], factor)
    assert all(blob.flags.writeable and blob.flags.aligned for blob in (*conv.blobs, *norm.blobs))


def test_layers_of_v1_come_back_with_four_sizes(tmp_path: Path) -> None:
    weight, bias = values(2, 3, 3, 3), values(2)
    full = values(5, 7)
    path = write_caffe(
        tmp_path / "v1.caffemodel",
        [
            caffe_v1_layer("conv1", 4, [weight, bias]),
            caffe_v1_layer("fc", 14, [full]),
            caffe_v1_layer("r", 18, []),
        ],
    )
    conv, inner = read_caffe_model(path)
    assert (conv.name, conv.type, inner.type) == ("conv1", "Convolution", "InnerProduct")
    assert np.array_equal(conv.blobs[0], weight)
    assert conv.blobs[1].shape == (1, 1, 1, 2)
    assert np.array_equal(inner.blobs[0], full[None, None])


def test_pieces_of_numbers_and_of_sizes_are_joined(tmp_path: Path) -> None:
    ones, twos = np.full(3, 1, "<f4"), np.full(2, 2, "<f4")
    single = varint(5 << 3 | 5) + struct.pack("<f", 9)
    blob = message(5, ones.tobytes()) + single + single + message(5, twos.tobytes())
    blob += message(7, number(1, 7)) + message(6, ones.tobytes())  # a gradient, which is skipped
    path = write_caffe(tmp_path / "n.caffemodel", [message(100, message(1, "l") + message(7, blob))])
    assert read_caffe_model(path)[0].blobs[0].tolist() == [1, 1, 1, 9, 9, 2, 2]


def test_googles_own_writer_is_understood(tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf", reason="protobuf is not installed")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="part.proto", package="part", syntax="proto2")

    def add(name: str, *fields: tuple[str, int, str, str]) -> None:
        kind = file.message_type.add(name=name)
        for field, place, of, how in fields:
            made = kind.field.add(name=field, number=place, label=3 if how != "one" else 1)
            made.type = {"text": 9, "float": 2, "int64": 3}.get(of, 11)
            if made.type == 11:
                made.type_name = f".part.{of}"
            if how == "packed":
                made.options.packed = True

    add("Shape", ("dim", 1, "int64", "packed"))
    add("Blob", ("shape", 7, "Shape", "one"), ("data", 5, "float", "packed"), ("diff", 6, "float", "packed"))
    add("Layer", ("name", 1, "text", "one"), ("type", 2, "text", "one"), ("blobs", 7, "Blob", "many"))
    add("Net", ("name", 1, "text", "one"), ("layer", 100, "Layer", "many"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("part.Net"))(name="n")
    weight = values(300, 2, 3, 3)  # sizes of more than one byte
    layer = net.layer.add(name="conv", type="Convolution")
    blob = layer.blobs.add(data=weight.ravel().tolist(), diff=[0.0])
    blob.shape.dim.extend(weight.shape)
    (tmp_path / "n.caffemodel").write_bytes(net.SerializeToString())
    (found,) = read_caffe_model(tmp_path / "n.caffemodel")
    assert (found.name, found.type) == ("conv", "Convolution")
    assert np.array_equal(found.blobs[0], weight)


def test_a_file_that_is_cut_or_changed_gives_layers_or_a_message(tmp_path: Path) -> None:
    whole = write_caffe(tmp_path / "n.caffemodel", [caffe_layer("c", "C", [values(2, 2)])]).read_bytes()
    variants = [whole[:length] for length in range(len(whole))]
    variants += [whole[:at] + bytes([v]) + whole[at + 1 :] for at in range(len(whole)) for v in (1, 0xFF)]
    refused = 0
    for variant in variants:
        (tmp_path / "bad.caffemodel").write_bytes(variant)
        try:
            layers = read_caffe_model(tmp_path / "bad.caffemodel")
        except WeightsError:
            refused += 1
        else:
            assert sum(blob.nbytes for layer in layers for blob in layer.blobs) <= 2 * len(whole)
    assert refused >= len(whole)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "none with any"),
        (message(1, "net"), "must hold layers with weights; got 0 layers"),
        (number(100, 3), "a layer must have wire type 2; got 0"),
        (varint(100 << 3 | 2) + varint(2**62), "a field of 4,611,686,018,427,387,904 bytes goes"),
        (b"\xff" * 12, "a number has more than 10 bytes"),
        (b"\x80", "it ends within a number"),
        (b"\x0b\x01", "must have wire type 0, 1, 2 or 5; got 3"),
        (b"\x00\x01", "must have numbers from 1 on"),
        (message(100, message(7, caffe_blob(values(2)))), "a layer with weights has no name"),
        (message(100, message(1, b"\xff\xfe")), "a layer's name must be UTF-8"),
        (message(2, message(1, message(1, "old"))), "oldest kind"),
        (
            message(100, message(1, "l") + message(7, message(7, number(1, 3)) + message(5, bytes(8)))),
            r"layer 'l' must hold 3 numbers of \(3,\); got 2",
        ),
        (
            message(100, message(1, "l") + message(7, message(7, number(1, 2**63)) + message(5, bytes(8)))),
            "impossible shape",
        ),
        (message(100, message(1, "l") + message(7, message(5, bytes(7)))), "7 bytes are no whole numbers"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "net.caffemodel").write_bytes(content)
    with pytest.raises(WeightsError, match=problem):
        read_caffe_model(tmp_path / "net.caffemodel")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"There is no weights file .*absent\.caffemodel"):
        read_caffe_model(tmp_path / "absent.caffemodel")


@pytest.mark.parametrize("packed", [True, False])
def test_reading_takes_no_more_memory_than_the_arrays(tmp_path: Path, packed: bool) -> None:
    count = 1 << 18 if packed else 1 << 14
    layers = [caffe_layer(n, "Convolution", [np.ones(count, np.float32)], packed=packed) for n in "abcd"]
    path = write_caffe(tmp_path / "net.caffemodel", layers)
    tracemalloc.start()
    found = read_caffe_model(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(blob.nbytes for layer in found for blob in layer.blobs) == 4 * 4 * count
    assert peak < (1.1 if packed else 1.6) * 4 * 4 * count
