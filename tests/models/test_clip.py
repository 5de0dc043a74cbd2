"""The adapter to Hugging Face's CLIP family, on small random checkpoints in that format."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from wsss.errors import ShapeError, WeightsError
from wsss.models.clip import HuggingFaceTeacher, ImageTextTeacher, features_of, load_teacher
from wsss.models.teacher_folder import save_teacher
from wsss.models.tiny_clip import TinyClipConfig, tiny_clip, word_tokenizer

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = "a photo of the red blue green cow horse sky."


def small_model(family: str) -> tuple[Any, Any]:
    """A random model of the family with its tokenizer."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer([WORDS], 10)
    if family == "clip":
        config = TinyClipConfig(
            image_size=32, patch_size=8, width=32, layers=2, heads=2, text_width=16, context_length=10
        )
        return tiny_clip(config, tokenizer), tokenizer
    from transformers import SiglipConfig, SiglipModel

    tower = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 10,
        "projection_size": 32,
        **special,
        **tower,
    }
    vision = {"image_size": 32, "patch_size": 8, **tower}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model, tokenizer


@pytest.fixture(scope="module", params=["clip", "siglip"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, tokenizer = small_model(request.param)
    folder = tmp_path_factory.mktemp("checkpoints") / request.param
    return save_teacher(folder, model, tokenizer, mean=MEAN, std=STD)


@pytest.fixture(scope="module")
def teacher(checkpoint: Path) -> HuggingFaceTeacher:
    return load_teacher(checkpoint)


def original(checkpoint: Path) -> Any:
    """The same checkpoint through transformers alone."""
    from transformers import AutoModel

    return AutoModel.from_pretrained(checkpoint).float().eval()


def test_vectors_equal_those_of_the_model_itself(checkpoint: Path, teacher: HuggingFaceTeacher) -> None:
    assert isinstance(teacher, ImageTextTeacher)
    model, images = original(checkpoint), torch.randn(3, 3, 32, 32)
    texts = ["a photo of cow.", "the red sky"]
    ids = torch.tensor(
        [teacher.tokenizer(text, padding="max_length", max_length=10)["input_ids"] for text in texts]
    )
    mask = {"attention_mask": (ids != 0).long()} if model.config.model_type == "clip" else {}
    with torch.no_grad():
        torch.testing.assert_close(
            teacher.encode_images(images), features_of(model.get_image_features(pixel_values=images))
        )
        torch.testing.assert_close(
            teacher.encode_texts(texts), features_of(model.get_text_features(input_ids=ids, **mask))
        )
    assert teacher.encode_images(images).shape == (3, teacher.embedding_size)
    assert teacher.encode_texts(texts).shape == (2, teacher.embedding_size)


def test_a_vector_does_not_depend_on_its_batch(teacher: HuggingFaceTeacher) -> None:
    images, texts = torch.randn(4, 3, 32, 32), ["cow", "a photo of the red horse.", "sky"]
    torch.testing.assert_close(teacher.encode_images(images)[1:2], teacher.encode_images(images[1:2]))
    torch.testing.assert_close(teacher.encode_texts(texts)[1:2], teacher.encode_texts(texts[1:2]))


def test_gradients_reach_the_image_and_no_weight(teacher: HuggingFaceTeacher) -> None:
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    texts = teacher.encode_texts(["cow", "sky"])
    assert not texts.requires_grad
    F.cosine_similarity(teacher.encode_images(images), texts).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())


def test_it_is_always_in_evaluation_mode(teacher: HuggingFaceTeacher) -> None:
    assert teacher.train() is teacher
    assert not any(module.training for module in teacher.modules())


def test_vectors_are_float32_under_any_autocast_and_close_with_bfloat16_encoders(checkpoint: Path) -> None:
    images = torch.randn(4, 3, 32, 32)
    full, half = load_teacher(checkpoint), load_teacher(checkpoint, precision="bfloat16")
    expected = full.encode_images(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        unchanged, rounded = full.encode_images(images), half.encode_images(images)
        assert half.encode_texts(["cow"]).dtype == torch.float32
    assert unchanged.equal(expected)  # float32 teachers ignore the training's autocast
    assert rounded.dtype == torch.float32
    assert not rounded.equal(expected)
    text = full.encode_texts(["cow"])
    difference = F.cosine_similarity(rounded, text) - F.cosine_similarity(expected, text)
    assert difference.abs().max() < 1e-2  # 2 towers of random weights; real ones stay below 2e-3


def test_the_tail_runs_in_float32(checkpoint: Path) -> None:
    half = load_teacher(checkpoint, precision="bfloat16")
    seen: list[torch.dtype] = []
    model: Any = half.model
    tail = model.visual_projection if model.config.model_type == "clip" else model.vision_model.head.mlp
    tail.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half.encode_images(torch.randn(1, 3, 32, 32))
    assert seen == [torch.float32]


def test_no_image_gives_no_vector_but_keeps_the_graph(teacher: HuggingFaceTeacher) -> None:
    images = torch.zeros(0, 3, 32, 32, requires_grad=True)
    features = teacher.encode_images(images)
    assert features.shape == (0, teacher.embedding_size)
    features.sum().backward()
    assert teacher.encode_texts([]).shape == (0, teacher.embedding_size)


def test_another_image_size_is_refused(teacher: HuggingFaceTeacher) -> None:
    with pytest.raises(ShapeError, match=r"\(any, 3, 32, 32\); got \(1, 3, 64, 64\)"):
        teacher.encode_images(torch.zeros(1, 3, 64, 64))


def test_cut_texts_and_unknown_words_are_logged_once(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher, long = load_teacher(checkpoint), "a photo of the red red red red red red cow"
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            vectors = teacher.encode_texts([long, "a photo of zebra.", "a photo of cow."])
    assert vectors.shape[0] == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"Teacher {checkpoint} reads 10 tokens only of {long!r}",
        f"Teacher {checkpoint} does not know every word of 'a photo of zebra.'",
    ]
    assert teacher.tokenize([long])["input_ids"][0, -1] == 3  # a cut text keeps its end


def test_sizes_statistics_and_template_come_from_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    teacher = load_teacher(checkpoint)
    assert (teacher.image_size, teacher.mean, teacher.std) == (32, MEAN, STD)
    assert teacher.prompt_template == "a photo of {}."
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    (copy / "teacher.json").write_text(json.dumps({"prompt_template": "a picture of {}"}))
    settings = (copy / "preprocessor_config.json").read_text()
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="does not say how its images are normalised"):
        load_teacher(copy)
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(settings)}))
    assert load_teacher(copy).mean == MEAN  # transformers 5 writes one file for all processors
    assert load_teacher(copy).prompt_template == "a picture of {}"
    assert load_teacher(copy, prompt_template="{}").prompt_template == "{}"
    with pytest.raises(WeightsError, match=r"must hold \{\} once"):
        load_teacher(copy, prompt_template="a photo")


def test_half_precision_weights_are_loaded_as_float32(tmp_path: Path) -> None:
    model, tokenizer = small_model("clip")
    folder = save_teacher(tmp_path / "half", model, tokenizer, mean=MEAN, std=STD, half=True)
    sizes = [parameter.numel() for parameter in model.parameters()]
    assert (folder / "model.safetensors").stat().st_size < 2 * sum(sizes) + 40_000
    teacher = load_teacher(folder)
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float32}


def test_a_missing_teacher_names_the_command_that_gets_it() -> None:
    with pytest.raises(WeightsError, match="`wsss weights fetch openai/no-such-model`"):
        load_teacher("openai/no-such-model")


def test_a_teacher_in_the_local_cache_is_found_by_its_id(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def local_only(repository: str, *, revision: str | None, local_files_only: bool) -> str:
        assert (repository, local_files_only) == ("owner/model", True)
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", local_only)
    assert load_teacher("owner/model").name == "owner/model"


def test_a_real_cache_layout_is_read_without_any_connection(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--owner--model", "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert load_teacher("owner/model").image_size == 32
    assert load_teacher(f"owner/model@{commit}").image_size == 32
    with pytest.raises(WeightsError, match="fetch owner/model@v2"):
        load_teacher("owner/model@v2")


def test_pickled_weights_need_consent(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        load_teacher(copy)
    torch.save(original(checkpoint).state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickle only"):
        load_teacher(copy)
    loaded = load_teacher(copy, allow_pickle=True).model.state_dict()
    expected = load_teacher(checkpoint).model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(loaded[name].equal(value) for name, value in expected.items())


def test_other_models_and_damaged_checkpoints_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    with pytest.raises(WeightsError, match=r"has no config\.json"):
        load_teacher(tmp_path)
    tiny = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 20,
    }
    BertModel(BertConfig(**tiny)).save_pretrained(tmp_path / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(checkpoint / name, tmp_path / "bert" / name)
    with pytest.raises(WeightsError, match="is a `bert` model"):
        load_teacher(tmp_path / "bert")
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    state = load_file(copy / "model.safetensors")
    save_file(
        {name: value for name, value in state.items() if "patch" not in name},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(WeightsError, match=r"lack \['vision_model.embeddings.patch_embedding"):
        load_teacher(copy)
    (copy / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="can't be loaded"):
        load_teacher(copy)


def test_a_saved_teacher_replaces_the_old_one_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    model, tokenizer = small_model("clip")
    folder = save_teacher(tmp_path / "t", model, tokenizer, mean=MEAN, std=STD, card={"words": ["cow"]})
    (folder / "stale").touch()
    save_teacher(folder, model, tokenizer, mean=MEAN, std=STD, card={"words": ["cow"]})
    assert not (folder / "stale").exists()
    assert list(tmp_path.iterdir()) == [folder]
    assert json.loads((folder / "teacher.json").read_text()) == {
        "prompt_template": "a photo of {}.",
        "words": ["cow"],
    }


def test_the_word_tokenizer_knows_its_words_whatever_their_order() -> None:
    first = word_tokenizer(["a red-ish Kälbchen", "crack_3 of a"], 8)
    second = word_tokenizer(["crack_3 of a", "a red-ish kälbchen"], 8)
    assert first.get_vocab() == second.get_vocab()
    assert first.unk_token_id not in first("Crack_3 of a RED-ish kälbchen")["input_ids"]
    assert first.eos_token_id == 3  # CLIPModel takes 2 for "the highest id of a text"


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    model, tokenizer = small_model("clip")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0001.jpg").write_bytes(b"dear")
    with pytest.raises(WeightsError, match=r"photos is to become a teacher's folder, but"):
        save_teacher(tmp_path / "photos", model, tokenizer, mean=MEAN, std=STD)
    assert (tmp_path / "photos" / "0001.jpg").read_bytes() == b"dear"
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    (tmp_path / "empty").mkdir()
    save_teacher(tmp_path / "empty", model, tokenizer, mean=MEAN, std=STD)
