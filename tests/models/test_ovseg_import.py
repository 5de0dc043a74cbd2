"""The conversion of OVSeg's checkpoint: the original features, or a message that says what does not fit."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.small_clip import MEAN, STD, examples, prompts, small_clip
from wsss.errors import WeightsError
from wsss.models.clip import load_teacher
from wsss.models.mask_adapted import MaskAdaptedTeacher
from wsss.models.ovseg_import import PREFIX, convert_ovseg
from wsss.models.teacher_folder import save_teacher


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, tokenizer = small_clip()
    return save_teacher(tmp_path_factory.mktemp("plain") / "clip", model, tokenizer, mean=MEAN, std=STD)


def openai_layout(model: Any, mask_embedding: Tensor) -> dict[str, Tensor]:
    """A `CLIPModel` in the layout of OpenAI's code, with OVSeg's mask embedding."""
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    state = {
        "visual.conv1.weight": own["vision_model.embeddings.patch_embedding.weight"],
        "visual.class_embedding": own["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": own["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": own["visual_projection.weight"].T.contiguous(),
        "visual.mask_embedding": mask_embedding,
        "token_embedding.weight": own["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": own["text_model.embeddings.position_embedding.weight"],
        "text_projection": own["text_projection.weight"].T.contiguous(),
        "logit_scale": own["logit_scale"],
    }
    for kind in ("weight", "bias"):
        state[f"visual.ln_pre.{kind}"] = own[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = own[f"vision_model.post_layernorm.{kind}"]
        state[f"ln_final.{kind}"] = own[f"text_model.final_layer_norm.{kind}"]
        for theirs, ours, blocks in (
            ("visual.transformer", "vision_model", 4),
            ("transformer", "text_model", 2),
        ):
            for i in range(blocks):
                to, of = f"{theirs}.resblocks.{i}", f"{ours}.encoder.layers.{i}"
                state[f"{to}.attn.in_proj_{kind}"] = torch.cat(
                    [own[f"{of}.self_attn.{letter}_proj.{kind}"] for letter in ("q", "k", "v")]
                )
                state[f"{to}.attn.out_proj.{kind}"] = own[f"{of}.self_attn.out_proj.{kind}"]
                state[f"{to}.ln_1.{kind}"] = own[f"{of}.layer_norm1.{kind}"]
                state[f"{to}.ln_2.{kind}"] = own[f"{of}.layer_norm2.{kind}"]
                state[f"{to}.mlp.c_fc.{kind}"] = own[f"{of}.mlp.fc1.{kind}"]
                state[f"{to}.mlp.c_proj.{kind}"] = own[f"{of}.mlp.fc2.{kind}"]
    return state


def ovseg_state() -> dict[str, Tensor]:
    """OVSeg's CLIP: another vision tower than the base's, the same text tower; OpenAI's layout."""
    base, other = small_clip(0)[0], small_clip(5)[0]
    theirs = {name: value for name, value in base.state_dict().items() if name.startswith("text_")}
    other.load_state_dict(theirs, strict=False)
    return openai_layout(other, prompts())


def whole_model(state: dict[str, Tensor]) -> dict[str, Any]:
    """The same inside OVSeg's whole model, with other parts beside it."""
    inside: dict[str, Any] = {PREFIX + name: value for name, value in state.items()}
    inside["backbone.patch_embed.proj.weight"] = torch.zeros(3)
    inside["clip_adapter.non_object_embedding"] = torch.zeros(1, 24)
    return {"model": inside, "iteration": 7, "optimizer": {"state": {}}}


def test_a_converted_checkpoint_gives_the_original_features(plain_folder: Path, tmp_path: Path) -> None:
    torch.save(whole_model(ovseg_state()), tmp_path / "ovseg.pth")
    folder = convert_ovseg(tmp_path / "ovseg.pth", plain_folder, tmp_path / "teacher")
    assert {path.name for path in tmp_path.iterdir()} == {"ovseg.pth", "teacher"}
    teacher = load_teacher(folder)
    assert isinstance(teacher, MaskAdaptedTeacher)
    expected = MaskAdaptedTeacher(*small_clip(5), prompts(), mean=MEAN, std=STD)
    images, masks = examples()
    torch.testing.assert_close(
        teacher.encode_regions(images, masks), expected.encode_regions(images, masks), rtol=0, atol=0
    )
    base = load_teacher(plain_folder)
    assert teacher.encode_texts(["cat", "sky"]).equal(base.encode_texts(["cat", "sky"]))
    assert (teacher.mean, teacher.std, teacher.prompt_template) == (base.mean, base.std, base.prompt_template)
    card = json.loads((folder / "teacher.json").read_text())
    assert card["licence"] == "CC BY-NC 4.0 (non-commercial)"
    assert card["source"].startswith("OVSeg")
    assert len(card["sha256"]) == 64


@pytest.mark.parametrize("form", ["bare", "state_dict", "half", "safetensors", "sizes", "nested"])
def test_other_forms_of_the_same_checkpoint_give_the_same(
    plain_folder: Path, tmp_path: Path, form: str
) -> None:
    state, path = ovseg_state(), tmp_path / "weights.pt"
    if form == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    elif form == "sizes":
        torch.save({**state, "input_resolution": torch.tensor(32), "vocab_size": torch.tensor(9)}, path)
    elif form == "half":
        torch.save(whole_model({name: value.half() for name, value in state.items()}), path)
    else:
        bare = {"bare": state, "state_dict": {"state_dict": state, "epoch": 3}}
        torch.save(bare.get(form, {"state_dict": whole_model(state)}), path)
    teacher = load_teacher(convert_ovseg(path, plain_folder, tmp_path / "teacher"))
    assert isinstance(teacher, MaskAdaptedTeacher)
    images, masks = examples()
    expected = MaskAdaptedTeacher(*small_clip(5), prompts(), mean=MEAN, std=STD).encode_regions(images, masks)
    tolerance = 5e-2 if form == "half" else 0.0
    torch.testing.assert_close(teacher.encode_regions(images, masks), expected, rtol=0, atol=tolerance)


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if key != name}


def changed(
    name: str, change: Callable[[Tensor], Tensor]
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {**state, name: change(state[name])}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            without("visual.ln_post.bias"),
            r"missing \['visual.ln_post.bias'\], unknown \[\], other shapes \[\]",
        ),
        (
            without("visual.transformer.resblocks.3.attn.in_proj_weight"),
            r"missing \['visual.transformer.resblocks.3.attn.in_proj_weight'\]",
        ),
        (without("visual.mask_embedding"), r"missing \['visual.mask_embedding'\]"),
        (without("ln_final.weight"), r"missing \['ln_final.weight'\]"),
        (lambda state: {**state, "visual.extra": torch.zeros(2)}, r"unknown \['visual.extra'\]"),
        (
            lambda state: {**state, "visual.transformer.resblocks.4.ln_1.bias": torch.zeros(32)},
            r"unknown \['visual.transformer.resblocks.4.ln_1.bias'\]",
        ),
        (changed("visual.mask_embedding", torch.zeros_like), "zero everywhere"),
        (
            changed("visual.mask_embedding", lambda value: value[:, :1]),
            r"\(1 to 4, 16, 32\); got \(3, 1, 32\)",
        ),
        (
            changed("visual.positional_embedding", lambda value: value[:10]),
            r"'visual.positional_embedding \(10, 32\) instead of \(17, 32\)'",
        ),
        (changed("visual.proj", lambda value: value.T), r"visual.proj \(24, 32\) instead of \(32, 24\)"),
        (
            changed("visual.transformer.resblocks.0.attn.in_proj_bias", lambda value: value[:32]),
            r"in_proj_bias \(32,\) instead of \(96,\)",
        ),
        (
            changed("token_embedding.weight", lambda value: value + 0.1 * torch.randn_like(value)),
            r"text tower in .*weights.pt is not that of .*: unit features differ by up to 0\.",
        ),
        (changed("text_projection", lambda value: value * math.nan), "text tower .* differ by up to nan"),
        (
            lambda state: {**state, "visual.conv1.weight": "a word"},
            r"\['visual.conv1.weight'\] are something",
        ),
    ],
)
def test_whatever_does_not_fit_stops_the_conversion(
    plain_folder: Path, tmp_path: Path, edit: Callable[[dict[str, Tensor]], dict[str, Any]], message: str
) -> None:
    torch.save(whole_model(edit(ovseg_state())), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=message):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_a_wrong_prefix_is_named_beside_the_right_one(plain_folder: Path, tmp_path: Path) -> None:
    state = {f"adapter.clip.{name}": value for name, value in ovseg_state().items()}
    torch.save({"model": {**state, "backbone.norm.weight": torch.ones(2)}}, tmp_path / "weights.pt")
    with pytest.raises(
        WeightsError, match=r"no entry under `clip_adapter\.clip_model\.`.*found \['adapter\.clip\.'\]"
    ):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher")
    torch.save({"backbone.norm.weight": torch.ones(2)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"found \['backbone\.norm\.'\]"):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher")


class Trap:
    """Calls a function when it is unpickled."""

    def __init__(self, *called: Any) -> None:
        self.called = called

    def __reduce__(self) -> Any:
        return self.called[0], self.called[1:]


def test_foreign_objects_need_consent_and_never_run(plain_folder: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    foreign = {
        "config": argparse.Namespace(depth=3),
        "loss": np.float64(0.5),
        "history": np.arange(3),
        "trap": Trap(open, str(sprung), "w"),
    }
    torch.save({**whole_model(ovseg_state()), **foreign}, tmp_path / "weights.pt")
    with pytest.raises(
        WeightsError, match=r"holds more than tensors: .*argparse\.Namespace.*`allow_pickle=True`"
    ):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher")
    folder = convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher", allow_pickle=True)
    assert isinstance(load_teacher(folder), MaskAdaptedTeacher)
    trap = Trap(os.system, f"touch {sprung}")
    torch.save({**whole_model(ovseg_state()), "trap": trap}, tmp_path / "weights.pt")
    with pytest.raises(
        WeightsError, match=r"can't be read without running its code, which asks for \['posix\.system'\]"
    ):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher", allow_pickle=True)
    assert not sprung.exists()


def test_missing_damaged_and_other_files_are_named(plain_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "teacher"
    with pytest.raises(WeightsError, match="There is no weights file"):
        convert_ovseg(tmp_path / "none.pt", plain_folder, target)
    torch.save(whole_model(ovseg_state()), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("no weights at all")
    for name in ("cut.pt", "text.pt"):
        for allow_pickle in (False, True):
            with pytest.raises(WeightsError, match="is damaged"):
                convert_ovseg(tmp_path / name, plain_folder, target, allow_pickle=allow_pickle)
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="must hold named tensors; got list"):
        convert_ovseg(tmp_path / "list.pt", plain_folder, target)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0001.jpg").write_bytes(b"dear")
    with pytest.raises(WeightsError, match="holds something else"):
        convert_ovseg(tmp_path / "none.pt", plain_folder, tmp_path / "photos")
    assert not target.exists()
