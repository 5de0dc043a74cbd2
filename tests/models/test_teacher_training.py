"""Teachers trained and fine-tuned on tags: captions, learning, interruption, the written checkpoint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from wsss.data import FolderConfig, open_dataset
from wsss.data.dataset import Dataset
from wsss.errors import DataError, WsssError
from wsss.models import clip_finetuning, teacher_training
from wsss.models.clip import load_teacher
from wsss.models.clip_finetuning import CaptionMatching, FinetuneConfig, finetune
from wsss.models.contrastive_teacher import ContrastiveTeacher
from wsss.models.retrieval import average_precision
from wsss.models.teacher_training import TeacherConfig, train_teacher, words_of
from wsss.models.tiny_clip import TinyClipConfig, tiny_clip, word_tokenizer
from wsss.training.journal import read_journal
from wsss.types import Batch

COLOURS = {"blik": (220, 30, 30), "zorg": (30, 200, 40), "quam": (40, 50, 220)}  # words no public model knows
SCENES = {"pale": 235, "dark": 20}
TINY = {
    "image_size": 16,
    "patch_size": 4,
    "width": 32,
    "layers": 2,
    "heads": 2,
    "text_width": 32,
    "text_layers": 1,
}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 images of 20 x 24 pixels: coloured squares before a pale or dark ground, without masks."""
    root = tmp_path_factory.mktemp("coloured")
    rng = np.random.default_rng(0)
    rows = ["image,labels,scene"]
    for number in range(64):
        scene = list(SCENES)[number % 2]
        image = np.full((20, 24, 3), SCENES[scene], dtype=np.uint8)
        present = [name for name in COLOURS if rng.random() < 0.45]
        for place, name in zip(rng.permutation(3), present, strict=False):
            top, left = rng.integers(0, 10), 8 * place
            image[top : top + 9, left : left + 8] = COLOURS[name]
        noisy = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / f"{number:02d}.png")
        rows.append(f"{number:02d},{'|'.join(present)},{scene}")
    (root / "tags.csv").write_text("\n".join(rows))
    return open_dataset(FolderConfig.model_validate({"root": root, "tags": "tags.csv"}))


def tiny_config(**training: Any) -> TeacherConfig:
    settings = {"batch_size": 24, "warmup_steps": 5, "learning_rate": 3e-3, **training}
    return TeacherConfig.model_validate({"model": TINY, "training": settings, "held_out_share": 0.3})


def test_the_words_of_an_image_are_its_classes_and_scene_words(coloured: Dataset) -> None:
    known = {word for image_id in coloured.ids("train") for word in words_of(coloured, image_id)}
    assert known == {*COLOURS, *SCENES}
    image_id = next(i for i in coloured.ids("train") if coloured.image_labels(i).sum() == 2)
    names = np.array(coloured.class_names[1:])[coloured.image_labels(image_id)]
    assert words_of(coloured, image_id) == (*names, *coloured.scene_words(image_id))


@pytest.fixture(scope="module")
def trained(coloured: Dataset, tmp_path_factory: pytest.TempPathFactory) -> teacher_training.TrainedTeacher:
    folder = tmp_path_factory.mktemp("trained") / "teacher"
    return train_teacher(coloured, folder, tiny_config(steps=150), seed=1)


def test_it_learns_to_name_images_that_it_has_not_seen(trained: teacher_training.TrainedTeacher) -> None:
    log = read_journal(trained.folder.with_name("teacher-training") / "log.jsonl")
    losses = [entry["losses"]["contrastive"] for entry in log if "losses" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert trained.words == tuple(sorted({*COLOURS, *SCENES}))
    assert trained.held_out is not None
    assert trained.images + trained.held_out.images == 64
    assert trained.held_out.mean_average_precision > trained.held_out.chance + 0.2
    assert trained.held_out.first_word_right > trained.held_out.most_frequent_word_right


def test_the_written_folder_is_an_ordinary_checkpoint(trained: teacher_training.TrainedTeacher) -> None:
    from transformers import AutoTokenizer, CLIPModel

    teacher = load_teacher(trained.folder)
    assert (teacher.image_size, teacher.prompt_template) == (16, "a photo of {}.")
    CLIPModel.from_pretrained(trained.folder)
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    assert tokenizer.unk_token_id not in tokenizer("a photo of blik, zorg, and pale.")["input_ids"]
    card = json.loads((trained.folder / "teacher.json").read_text())
    assert card["words"] == list(trained.words)
    assert [path.name for path in trained.folder.with_name("teacher-training").iterdir()] == ["log.jsonl"]


def test_its_tokenizer_is_named_as_every_transformers_version_knows_it(
    trained: teacher_training.TrainedTeacher,
) -> None:
    written = json.loads((trained.folder / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_it_looks_at_the_shown_region(trained: teacher_training.TrainedTeacher) -> None:
    teacher = load_teacher(trained.folder)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (teacher.mean, teacher.std))
    gains = []
    for name, colour in COLOURS.items():
        for ground in SCENES.values():
            image, mask = torch.full((3, 16, 16), ground / 255), torch.zeros(1, 16, 16)
            image[:, 4:12, 4:11] = torch.tensor(colour).reshape(3, 1, 1) / 255
            mask[:, 4:12, 4:11] = 1
            image = (image - mean) / std
            vectors = teacher.encode_images(torch.stack([image * mask, image * (1 - mask)]))
            shown, hidden = F.cosine_similarity(vectors, teacher.encode_texts([f"a photo of {name}."]))
            gains.append(float(shown - hidden))
    assert sum(gains) / len(gains) > 0.1


def test_an_interrupted_training_ends_with_the_same_weights(coloured: Dataset, tmp_path: Path) -> None:
    config = tiny_config(steps=8, checkpoint_seconds=0, log_every=1)

    class KilledError(Exception):
        pass

    def kill(done: int, total: int, note: str) -> None:
        if done == 5:
            raise KilledError

    whole = train_teacher(coloured, tmp_path / "whole", config, seed=3)
    with pytest.raises(KilledError):
        train_teacher(coloured, tmp_path / "cut", config, seed=3, progress=kill)
    assert not (tmp_path / "cut").exists()
    assert (tmp_path / "cut-training" / "checkpoint.safetensors").is_file()
    done: list[int] = []
    resumed = train_teacher(
        coloured, tmp_path / "cut", config, seed=3, progress=lambda d, t, n: done.append(d)
    )
    assert min(done) >= 4
    weights = [(made.folder / "model.safetensors").read_bytes() for made in (whole, resumed)]
    assert weights[0] == weights[1]
    other = train_teacher(coloured, tmp_path / "other", config, seed=4)
    assert (other.folder / "model.safetensors").read_bytes() != weights[0]


def test_a_finished_teacher_is_not_trained_again_and_a_changed_setting_is(
    coloured: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(steps=2)
    first = train_teacher(coloured, tmp_path / "teacher", config)
    calls: list[int] = []
    real = teacher_training.train
    monkeypatch.setattr(teacher_training, "train", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    second = train_teacher(coloured, tmp_path / "teacher", config)
    assert (second.held_out, calls) == (first.held_out, [])
    train_teacher(coloured, tmp_path / "teacher", tiny_config(steps=3))
    assert calls == [1]


def test_masks_are_never_read(coloured: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(coloured).sample

    def sample(self: Any, image_id: str, *, with_mask: bool = False) -> Any:
        assert not with_mask
        return real(self, image_id)

    monkeypatch.setattr(type(coloured), "sample", sample)
    monkeypatch.setattr(type(coloured), "context", lambda *a: pytest.fail("context was read"))
    train_teacher(coloured, tmp_path / "teacher", tiny_config(steps=1))


def test_too_few_words_are_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "tags.csv").write_text("image,labels\na,cat\n")
    dataset = open_dataset(FolderConfig.model_validate({"root": tmp_path, "tags": "tags.csv"}))
    with pytest.raises(DataError, match="at least two words and two images"):
        train_teacher(dataset, tmp_path / "teacher", tiny_config(steps=1))


def test_given_settings_keep_the_others(coloured: Dataset) -> None:
    config = TeacherConfig.model_validate({"model": {"image_size": 96}, "training": {"epochs": 3}})
    assert (config.training.optimizer, config.training.steps, config.training.epochs) == ("adamw", None, 3)
    assert (config.training.augmentation.crop_size, config.training.augmentation.long_side) == (96, (96, 192))
    assert TeacherConfig.model_validate(config.model_dump(mode="json")) == config
    assert TeacherConfig().training.augmentation.crop_size == TeacherConfig().model.image_size
    tuned = FinetuneConfig.model_validate({"training": {"steps": 3}})
    assert (tuned.training.learning_rate, tuned.training.momentum, tuned.training.weight_decay) == (
        5e-5,
        0.9,
        1e-3,
    )
    assert FinetuneConfig().training.epochs == 20
    assert FinetuneConfig.model_validate(tuned.model_dump(mode="json")) == tuned


# ---- what the training sees


@pytest.fixture
def learner() -> ContrastiveTeacher:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(["a photo picture of, and . grass cow sky road"], 14)
    model = tiny_clip(TinyClipConfig(**{**TINY, "context_length": 14}), tokenizer)
    words = {"1": ("grass", "cow"), "2": ("sky",), "3": (), "4": ("grass", "sky", "road", "cow")}
    return ContrastiveTeacher(
        model, tokenizer, words, mask_shares=(1, 0, 0, 0), mixed_share=0.0, largest_scale=20.0
    )


def batch_of(*ids: str) -> Batch:
    count = len(ids)
    labels = torch.zeros(count, 1, dtype=torch.bool)
    return Batch(torch.randn(count, 3, 16, 16), labels, ids, torch.ones(count, 16, 16, dtype=torch.bool))


def test_captions_name_one_to_three_words_of_each_image_with_words(learner: ContrastiveTeacher) -> None:
    present = learner.presence(("1", "2", "3", "4"))
    assert learner.vocabulary == ("cow", "grass", "road", "sky")
    assert present.tolist() == [[True, True, False, False], [False] * 3 + [True], [False] * 4, [True] * 4]
    sizes = set()
    for _ in range(40):
        captions = learner._captions(present)
        assert captions.shape == (3, 4)  # the image without words has none
        assert not (captions & ~present[[0, 1, 3]]).any()
        sizes |= set(captions.sum(dim=1).tolist())
    assert sizes == {1, 2, 3}
    assert learner._singles(present).float().equal(torch.eye(4))


def test_a_text_matches_exactly_the_images_with_all_its_words(
    learner: ContrastiveTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    named: list[torch.Tensor] = []
    real = learner.text_features
    monkeypatch.setattr(learner, "text_features", lambda rows: (named.append(rows), real(rows))[1])
    monkeypatch.setattr(
        "wsss.models.contrastive_teacher.multi_positive_loss",
        lambda images, texts, scale, matches: (seen.append(matches), images.sum())[1],
    )
    learner.losses(batch_of("1", "2", "3", "4"))
    present = learner.presence(("1", "2", "3", "4"))
    expected = [[all(has[w] for w in row.nonzero().flatten()) for row in named[0]] for has in present]
    assert seen[0].tolist() == expected


def test_mixed_images_have_the_words_of_both(learner: ContrastiveTeacher) -> None:
    learner.mixed_share = 1.0
    images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 16, 16)
    mixed, present = learner._mixed(images, learner.presence(("1", "2", "3", "4")))
    assert [sorted(image.unique().tolist()) for image in mixed] == [[0, 3], [0, 1], [1, 2], [2, 3]]
    assert present.int().tolist() == [[1, 1, 1, 1], [1, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]]


def test_the_factor_of_cosines_is_limited_and_all_parts_learn(learner: ContrastiveTeacher) -> None:
    learner.model.logit_scale.data.fill_(9.0)
    loss = learner.losses(batch_of("1", "2", "3", "4"))["contrastive"]
    assert float(loss.detach()) < 3 * 20
    learner.model.logit_scale.data.fill_(1.0)
    learner.losses(batch_of("1", "2", "3", "4"))["contrastive"].backward()
    without = [name for name, parameter in learner.named_parameters() if parameter.grad is None]
    assert without == []
    groups = learner.parameter_groups(1e-3)
    assert sum(len(group["params"]) for group in groups) == len(list(learner.parameters()))
    assert groups[1]["weight_decay"] == 0.0


def test_average_precision_agrees_with_its_definition() -> None:
    scores, relevant = torch.tensor([0.9, 0.1, 0.5, 0.3]), torch.tensor([False, True, True, False])
    assert average_precision(scores, relevant) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([True, True, False])) == 1.0


# ---- fine-tuning


def test_fine_tuning_pairs_images_with_captions_of_their_tags(
    trained: teacher_training.TrainedTeacher,
) -> None:
    teacher = load_teacher(trained.folder)
    matching = CaptionMatching(teacher, ("blik", "zorg", "quam"), "a photo of {}")
    labels = torch.tensor([[True, False, False], [True, True, True]])
    assert [matching.caption_of(row) for row in labels] == [
        "a photo of blik",
        "a photo of blik, zorg, and quam",
    ]
    images = torch.randn(2, 3, 24, 24)
    loss = matching.losses(Batch(images, labels, ("a", "b"), torch.ones(2, 24, 24, dtype=torch.bool)))
    frozen = load_teacher(trained.folder)
    resized = F.interpolate(images, size=(16, 16), mode="bilinear", align_corners=True)
    x = F.normalize(frozen.encode_images(resized), dim=1)
    y = F.normalize(frozen.encode_texts(["a photo of blik", "a photo of blik, zorg, and quam"]), dim=1)
    logits = load_file(trained.folder / "model.safetensors")["logit_scale"].exp() * x @ y.T
    expected = F.cross_entropy(logits, torch.arange(2)) + F.cross_entropy(logits.T, torch.arange(2))
    torch.testing.assert_close(loss["caption_matching"], expected)
    loss["caption_matching"].backward()
    assert all(parameter.grad is not None for parameter in matching.parameters())


def test_fine_tuning_writes_a_changed_checkpoint_once(
    coloured: Dataset,
    trained: teacher_training.TrainedTeacher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = FinetuneConfig.model_validate(
        {
            "training": {
                "epochs": 2,
                "learning_rate": 0.05,
                "augmentation": {"crop_size": 24, "long_side": [20, 28]},
            }
        }
    )
    ids = coloured.ids("train")
    folder = finetune(trained.folder, coloured, ids, config, tmp_path, seed=0)
    assert folder == tmp_path / "teacher"
    before, after = (load_file(path / "model.safetensors") for path in (trained.folder, folder))
    assert set(before) == set(after)
    assert any(not before[name].equal(after[name]) for name in before)
    tuned, start = load_teacher(folder), load_teacher(trained.folder)
    assert (tuned.mean, tuned.std, tuned.prompt_template) == (start.mean, start.std, start.prompt_template)
    losses = [entry["losses"]["caption_matching"] for entry in read_journal(tmp_path / "log.jsonl")]
    assert all(np.isfinite(losses))
    assert not (tmp_path / "model.safetensors").exists()
    monkeypatch.setattr(clip_finetuning, "train", lambda *a, **k: pytest.fail("trained again"))
    assert finetune(trained.folder, coloured, ids, config, tmp_path, seed=0) == folder


def test_fine_tuning_refuses_unknown_names_and_images_without_tags(
    coloured: Dataset, trained: teacher_training.TrainedTeacher, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="'dog'"):
        finetune(
            trained.folder,
            coloured,
            coloured.ids("train"),
            FinetuneConfig(names={"dog": "hound"}),
            tmp_path,
            seed=0,
        )
    untagged = [image_id for image_id in coloured.ids("train") if not coloured.image_labels(image_id).any()]
    assert untagged
    with pytest.raises(WsssError, match="no caption can be made"):
        finetune(trained.folder, coloured, untagged, FinetuneConfig(), tmp_path, seed=0)
    assert dataclasses.is_dataclass(trained)
