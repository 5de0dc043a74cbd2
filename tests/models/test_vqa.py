"""The adapter to Hugging Face's BLIP for questions, on small random checkpoints in that format."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from wsss.errors import ShapeError, WeightsError
from wsss.models import vqa as module
from wsss.models.tiny_clip import word_tokenizer
from wsss.models.vqa import HuggingFaceVqa, QuestionAnswerer, load_vqa

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = "what is this the a red blue green cow horse sky meadow barn above under behind of in kind"
QUESTIONS = (
    "what is this",
    "what is above the cow",
    "what is under the cow",
    "what kind of horse is in the meadow",
    "what is behind the red barn",
    "is this a cow",
    "what is the green in the sky above the blue barn",
)
SIZE = 32


def piece_tokenizer() -> Any:
    """BERT's kind: pieces of words, [CLS] in front and [SEP] behind; without [DEC] and [ENC]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*special, *WORDS.split(), "##row", "##s", "man", "'", "s", ",", "."]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def tiny_blip(kind: str, *, positions: int = 40) -> tuple[Any, Any]:
    """A random BLIP that gives varied answers, with its tokenizer: words, or pieces with [DEC], [ENC]."""
    from transformers import BlipConfig, BlipForQuestionAnswering

    tokenizer = word_tokenizer([WORDS], positions) if kind == "words" else piece_tokenizer()
    count = len(tokenizer)
    special = {
        "vocab_size": count,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "sep_token_id": 3,
        "eos_token_id": 3,
    }
    if kind == "pieces":
        special |= {"vocab_size": count + 2, "bos_token_id": count}
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BlipConfig(
        text_config={**tower, **special, "max_position_embeddings": positions, "encoder_hidden_size": 32},
        vision_config={**tower, "image_size": SIZE, "patch_size": 8},
    )
    torch.manual_seed(3)
    model = BlipForQuestionAnswering(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:  # far apart, or every answer is one word over and over
            is_place = name.startswith("text_decoder") and "position" in name
            nn.init.normal_(parameter, std=3.0 if is_place else 0.3 if "embedding" in name else 1.5)
    return model, tokenizer


def save_checkpoint(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_processor_type": "BlipImageProcessor", "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module", params=["words", "pieces"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / request.param
    return save_checkpoint(folder, *tiny_blip(request.param))


@pytest.fixture(scope="module")
def answerer(checkpoint: Path) -> HuggingFaceVqa:
    return load_vqa(checkpoint)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Images of several sizes; smooth, so that squashed ones still differ."""
    generator = np.random.default_rng(0)
    coarse = [Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(4)]
    sizes = ((40, 50), (32, 32), (64, 20), (35, 33))
    return [np.array(image.resize(size)) for image, size in zip(coarse, sizes, strict=True)]


def one_at_a_time(answerer: HuggingFaceVqa, image: np.ndarray, question: str, **search: int) -> str:
    """The answer by the model's own `generate`: one question, the image encoded for it alone."""
    size, tokenizer = answerer.image_size, answerer.tokenizer
    squashed = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    pixels = (squashed.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    ids = tokenizer(question, truncation=True, max_length=35, return_tensors="pt")["input_ids"]
    if answerer.encode_token is not None:
        ids[:, 0] = answerer.encode_token
    found = answerer.model.generate(
        input_ids=ids,
        pixel_values=torch.from_numpy(pixels).permute(2, 0, 1)[None],
        interpolate_pos_encoding=size != SIZE,
        do_sample=False,
        **{"num_beams": 3, "max_length": 10, "min_length": 1, **search},
    )
    known = [number for number in found[0].tolist()[1:] if number < len(tokenizer)]
    text: str = tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=True)
    return text.strip()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("size", [SIZE, 48])
def test_answers_equal_those_to_one_question_at_a_time(
    checkpoint: Path, images: list[np.ndarray], beams: int, size: int
) -> None:
    answerer = load_vqa(checkpoint, beams=beams, image_size=size)
    assert isinstance(answerer, QuestionAnswerer)
    asked = [QUESTIONS[:5], QUESTIONS, QUESTIONS[3:], QUESTIONS[::2]]
    answers = answerer.answer(images, asked)
    expected = [
        [one_at_a_time(answerer, image, question, num_beams=beams) for question in own]
        for image, own in zip(images, asked, strict=True)
    ]
    assert answers == expected
    given = [text for own in answers for text in own]
    assert len(set(given)) > len(given) / 3  # otherwise a mixed-up batch could pass
    assert len({len(text.split()) for text in given}) > 3


def test_answers_do_not_depend_on_what_else_is_asked(checkpoint: Path, images: list[np.ndarray]) -> None:
    expected = load_vqa(checkpoint).answer(images, [QUESTIONS] * 4)
    smaller = load_vqa(checkpoint)
    for smaller.images_at_once, smaller.questions_at_once in ((1, 1), (3, 2)):
        assert smaller.answer(images, [QUESTIONS] * 4) == expected
    assert smaller.answer(images[2:3], [QUESTIONS[4:5]]) == [expected[2][4:5]]


def test_permuted_images_and_questions_permute_the_answers(
    answerer: HuggingFaceVqa, images: list[np.ndarray]
) -> None:
    expected = answerer.answer(images, [QUESTIONS] * 4)
    order, places = [2, 0, 3, 1], [5, 3, 0, 6, 1, 4, 2]
    shuffled = answerer.answer(
        [images[number] for number in order], [[QUESTIONS[place] for place in places]] * 4
    )
    assert shuffled == [[expected[number][place] for place in places] for number in order]


def test_work_on_an_image_is_done_once_and_nothing_is_padded(
    checkpoint: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = load_vqa(checkpoint)
    model, encoded, read, projected = answerer.model, [], [], []
    model.vision_model.register_forward_hook(lambda _, inputs, output: encoded.append(len(output[0])))
    model.text_encoder.register_forward_pre_hook(
        lambda _, inputs, options: read.append(options["input_ids"]), with_kwargs=True
    )
    key = model.text_encoder.encoder.layer[1].crossattention.self.key
    forward = nn.Linear.forward

    def counted(self: nn.Linear, states: torch.Tensor) -> torch.Tensor:
        projected.extend([1] if self is key else [])
        return forward(self, states)

    monkeypatch.setattr(nn.Linear, "forward", counted)
    answers = answerer.answer(images, [[*QUESTIONS, *QUESTIONS], [], QUESTIONS[:1], QUESTIONS])
    assert answers[0][:7] == answers[0][7:]
    assert answers[1] == []
    assert encoded == [3]  # the image without questions is left out
    assert len(projected) == 3  # once for an image, not for each length
    assert sum(len(ids) for ids in read) == 7 + 1 + 7
    assert all((ids != 0).all() for ids in read)


def test_nothing_asked_gives_nothing(answerer: HuggingFaceVqa, images: list[np.ndarray]) -> None:
    assert answerer.answer([], []) == []
    assert answerer.answer(images[:2], [[], ()]) == [[], []]


def test_another_image_size_is_read_by_interpolated_positions(
    checkpoint: Path, images: list[np.ndarray]
) -> None:
    for size, cells in ((None, 17), (SIZE, 17), (48, 37), (16, 5)):
        answerer = load_vqa(checkpoint, image_size=size)
        shapes: list[torch.Size] = []
        answerer.model.vision_model.register_forward_hook(
            lambda _, inputs, output, shapes=shapes: shapes.append(output[0].shape)
        )
        assert len(answerer.answer(images[:2], [QUESTIONS[:1]] * 2)[0]) == 1
        assert shapes == [(2, cells, 32)]
        assert answerer.settings["image_size"] == (size or SIZE)


def test_the_port_of_blip_base_is_used_at_its_authors_size() -> None:
    from transformers import BlipConfig

    for vision, size in (((384, 768), 480), ((384, 1024), 384), ((224, 768), 224)):
        config = BlipConfig(vision_config={"image_size": vision[0], "hidden_size": vision[1]})
        assert module._default_size(config) == size


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_the_encode_token_stands_in_front_where_there_is_one(kind: str, images: list[np.ndarray]) -> None:
    model, tokenizer = tiny_blip(kind)
    statistics = {"mean": MEAN, "std": STD}
    seen: list[list[int]] = []
    model.text_encoder.register_forward_pre_hook(
        lambda _, inputs, options: seen.extend(options["input_ids"].tolist()), with_kwargs=True
    )

    def first_token(answerer: HuggingFaceVqa) -> int:
        seen.clear()
        answerer.answer(images[:1], [["what is this"]])
        assert seen[0][1:] == tokenizer("what is this")["input_ids"][1:]
        return seen[0][0]

    count = len(tokenizer)
    expected = count + 1 if kind == "pieces" else 2
    assert first_token(HuggingFaceVqa(model, tokenizer, **statistics)) == expected
    assert first_token(HuggingFaceVqa(model, tokenizer, encode_token="keep", **statistics)) == 2
    if kind == "pieces":
        tokenizer.add_special_tokens({"additional_special_tokens": ["[DEC]", "[ENC]"]})
        assert first_token(HuggingFaceVqa(model, tokenizer, **statistics)) == count + 1


def test_cut_questions_and_unknown_words_are_logged_once(
    checkpoint: Path, images: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    answerer, long = load_vqa(checkpoint), "what is this" + " red" * 40
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            answers = answerer.answer(images[:1], [[long, "what is this zebra", "what is this"]])
    assert [record.getMessage() for record in caplog.records] == [
        f"Answerer {checkpoint} reads 35 tokens only of {long!r}",
        f"Answerer {checkpoint} does not know every word of 'what is this zebra'",
    ]
    assert answers[0][0] == one_at_a_time(answerer, images[0], long)


def test_answers_are_read_as_the_authors_read_them(
    images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny_blip("pieces")
    start = len(tokenizer)
    words = tokenizer.convert_tokens_to_ids(["red", "man", "'", "s", "barn", "##s", "[SEP]", "[PAD]"])
    monkeypatch.setattr(
        model.text_decoder, "generate", lambda **_: torch.tensor([[start, *words[:3], start + 1, *words[3:]]])
    )
    answerer = HuggingFaceVqa(model, tokenizer, mean=MEAN, std=STD)
    assert answerer.answer(images[:1], [["what is this"]]) == [["red man's barns"]]


def test_weights_are_frozen_and_the_mode_is_always_evaluation(
    answerer: HuggingFaceVqa, images: list[np.ndarray]
) -> None:
    assert answerer.train() is answerer
    assert not any(part.training for part in answerer.modules())
    assert not any(parameter.requires_grad for parameter in answerer.parameters())
    before = answerer.answer(images, [QUESTIONS] * 4)
    assert answerer.answer(images, [QUESTIONS] * 4) == before
    assert all(parameter.grad is None for parameter in answerer.parameters())


def test_bfloat16_runs_and_float32_ignores_the_autocast_around_it(
    checkpoint: Path, images: list[np.ndarray]
) -> None:
    half, full, seen = load_vqa(checkpoint, precision="bfloat16"), load_vqa(checkpoint), []
    half.model.text_encoder.encoder.layer[0].output.dense.register_forward_hook(
        lambda _, inputs, output: seen.append(output.dtype)
    )
    answers = half.answer(images, [QUESTIONS] * 4)
    assert set(seen) == {torch.bfloat16}
    assert [len(own) for own in answers] == [7] * 4
    expected = full.answer(images, [QUESTIONS] * 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert full.answer(images, [QUESTIONS] * 4) == expected


def test_settings_say_what_decides_the_answers(checkpoint: Path) -> None:
    search = {"beams": 2, "max_length": 6, "min_length": 2, "precision": "bfloat16"}
    answerer = load_vqa(checkpoint, **search)
    read = {"image_size": SIZE, "question_tokens": 35, "encode_token": answerer.encode_token}
    assert json.loads(json.dumps(answerer.settings)) == search | read


def test_wrong_images_questions_and_numbers_are_refused(
    checkpoint: Path, answerer: HuggingFaceVqa, images: list[np.ndarray]
) -> None:
    with pytest.raises(ShapeError, match=r"got 1 lists for 2 images"):
        answerer.answer(images[:2], [QUESTIONS])
    with pytest.raises(ShapeError, match=r"`questions\[0\]` must be a list of texts; got 'what'"):
        answerer.answer(images[:1], ["what"])
    for wrong in (images[0][..., 0], images[0].astype(np.float32), images[0][:0]):
        with pytest.raises(ShapeError, match=r"`images\[0\]` must be uint8 of shape \(H, W, 3\); got"):
            answerer.answer([wrong], [QUESTIONS])
    with pytest.raises(ShapeError, match=r"multiple of the patch size 8; got 44"):
        load_vqa(checkpoint, image_size=44)
    with pytest.raises(ShapeError, match=r"`max_length` must lie in \[2, 40\]; got 41"):
        load_vqa(checkpoint, max_length=41)
    with pytest.raises(ShapeError, match=r"`beams` must lie in"):
        load_vqa(checkpoint, beams=0)


def test_a_missing_answerer_names_the_command_that_gets_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match="`wsss weights fetch owner/no-such-vqa`"):
        load_vqa("owner/no-such-vqa")
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        load_vqa(tmp_path)
    monkeypatch.setattr("wsss.models.weights.EMBEDDED", tmp_path)
    with pytest.raises(WeightsError, match="`wsss embedded train vqa`"):
        load_vqa("embedded")
    shutil.copytree(checkpoint, tmp_path / "vqa")
    assert load_vqa("embedded").name == "embedded"


def test_pickled_weights_need_consent(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        load_vqa(copy)
    expected = load_vqa(checkpoint).model.state_dict()
    torch.save(expected, copy / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickle only"):
        load_vqa(copy)
    loaded = load_vqa(copy, allow_pickle=True).model.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(loaded[name].equal(value) for name, value in expected.items())


def test_other_models_and_damaged_checkpoints_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    for change, told in (
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, "`CLIPModel` of the family `clip`"),
        ({"architectures": ["BlipForConditionalGeneration"]}, "`BlipForConditionalGeneration` of the family"),
    ):
        (copy / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(WeightsError, match=f"{told}.*expected `BlipForQuestionAnswering`"):
            load_vqa(copy)
    (copy / "config.json").write_text(json.dumps(config))
    settings = (copy / "preprocessor_config.json").read_text()
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="does not say how its images are normalised"):
        load_vqa(copy)
    (copy / "preprocessor_config.json").write_text(settings)
    state = load_file(copy / "model.safetensors")
    kept = {name: value for name, value in state.items() if not name.startswith("text_decoder.bert.encoder")}
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"lack \['text_decoder.bert.encoder"):
        load_vqa(copy)
    (copy / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="can't be loaded"):
        load_vqa(copy)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    model, _ = tiny_blip("words")
    larger = word_tokenizer([WORDS, "zebra giraffe"], 40)
    with pytest.raises(WeightsError, match=r"has \d+ tokens, its model \d+ only"):
        HuggingFaceVqa(model, larger, mean=MEAN, std=STD)
    with pytest.raises(WeightsError, match="`BlipVisionModel` of the family `blip_vision_model`"):
        HuggingFaceVqa(model.vision_model, larger, mean=MEAN, std=STD)


def test_half_precision_weights_are_loaded_as_float32(tmp_path: Path) -> None:
    model, tokenizer = tiny_blip("words")
    loaded = load_vqa(save_checkpoint(tmp_path / "half", model.half(), tokenizer))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
