from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BlipForQuestionAnswering, CLIPModel

from wsss.data.scenes import answer, context_names, draw_scene, plan_scene, vocabulary
from wsss.data.scenes.relations import RELATIONS, describe
from wsss.data.scenes.world import SceneSpec
from wsss.errors import WeightsError
from wsss.models.embedded import CLIP_FOLDER, VQA_FOLDER, vqa_training
from wsss.models.embedded.compose import stream
from wsss.models.embedded.vqa_evaluation import SPLIT as EVALUATION_SPLIT
from wsss.models.embedded.vqa_evaluation import evaluate_vqa
from wsss.models.embedded.vqa_format import (
    new_vqa,
    new_vqa_tokenizer,
    save_vqa,
    shrinking,
    start_from_teacher,
)
from wsss.models.embedded.vqa_pictures import (
    TOPICS,
    Pictures,
    answer_table,
    answer_words,
    draw_pictures,
    mirrored,
    normalised,
)
from wsss.models.embedded.vqa_training import SPLIT, answer_loss, ask, tokenised, train_vqa
from wsss.models.vqa import load_vqa

SURROUNDINGS = (*RELATIONS, "scene", "environment", "place")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return draw_pictures(5, SPLIT, 40)


@pytest.fixture(scope="module")
def scores() -> dict[str, dict[str, float]]:
    return evaluate_vqa(VQA_FOLDER, images=60, seed=9)


def test_the_shipped_folder_is_small_and_says_what_made_it() -> None:
    assert sum(path.stat().st_size for path in VQA_FOLDER.iterdir()) <= 8_000_000
    weights = load_file(VQA_FOLDER / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    card = json.loads((VQA_FOLDER / "vqa.json").read_text())
    settings = vqa_training.VqaSettings()
    assert card["command"] == "wsss embedded train vqa --seed 0"
    assert {name: card[name] for name in vars(settings)} == vars(settings)
    model = BlipForQuestionAnswering.from_pretrained(str(VQA_FOLDER), local_files_only=True)
    assert set(weights) <= set(model.state_dict())


def test_the_shipped_vqa_answers_unseen_scenes(scores: dict[str, dict[str, float]]) -> None:
    seeing, grey = scores["seeing"], scores["grey"]
    assert tuple(seeing) == TOPICS
    assert np.mean(list(seeing.values())) >= 85
    assert min(seeing.values()) >= 65  # of some 80 questions each
    for topic in SURROUNDINGS:
        assert seeing[topic] >= max(grey[topic], scores["guessing"][topic]) + 20, topic


def test_the_adapter_gives_the_world_s_own_words() -> None:
    scenes = [draw_scene(plan_scene(7, EVALUATION_SPLIT, index, free=True)) for index in range(3)]
    label = scenes[0].metadata["labels"][0]
    questions = [[template.format(label) for template, _ in vocabulary().questions]] * 3
    answers = load_vqa("embedded").answer([scene.image for scene in scenes], questions)
    assert {word for row in answers for word in row} <= set(answer_words())


def test_every_word_has_a_token_of_its_own() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(VQA_FOLDER), local_files_only=True)
    texts = tokenised(new_vqa_tokenizer())
    for row, word in enumerate(answer_words()):
        tokens = tokenizer(word).input_ids
        assert tokens == texts.answers[row].tolist()
        assert tokenizer.unk_token_id not in tokens
    for template, _ in vocabulary().questions:
        for item in vocabulary().classes:
            tokens = tokenizer(template.format(item.name)).input_ids
            assert tokenizer.unk_token_id not in tokens
            assert tokens[0] == tokenizer.bos_token_id


def test_training_scenes_are_never_the_benchmark_s() -> None:
    training = {plan_scene(0, SPLIT, index, free=True).seed for index in range(60)}
    for split, free in (("train", False), ("val", False), (EVALUATION_SPLIT, True)):
        other = {plan_scene(0, split, index, free=free).seed for index in range(60)}
        assert not training & other


def test_pictures_are_those_of_the_plans_whatever_number_draws_them(pictures: Pictures) -> None:
    scenes = [draw_scene(plan_scene(5, SPLIT, index, free=True)) for index in range(40)]
    scenes = [scene for scene in scenes if scene.metadata["labels"]]
    assert torch.equal(pictures.images, torch.from_numpy(np.stack([scene.image for scene in scenes])))
    for row, scene in enumerate(scenes):
        for slot, label in enumerate(scene.metadata["labels"]):
            found = [answer_words()[place] for place in pictures.answers[row, 0, slot].tolist()]
            assert found == [answer(scene.metadata, label, topic) for topic in TOPICS]


def test_mirroring_swaps_what_is_left_and_right() -> None:
    differing = 0
    for index in range(60):
        spec = plan_scene(2, SPLIT, index, free=True)
        scene = draw_scene(spec)
        expected = _told_of_the_flipped_picture(spec)
        found = mirrored(scene.metadata)
        for label in scene.metadata["labels"]:
            left, right = (answer(scene.metadata, label, topic) for topic in ("left", "right"))
            assert (answer(found, label, "right"), answer(found, label, "left")) == (left, right)
            differing += left != right
            for topic in TOPICS:
                assert answer(found, label, topic) == answer(expected, label, topic)
    assert differing >= 20


def _told_of_the_flipped_picture(spec: SceneSpec) -> dict[str, object]:
    scene = draw_scene(spec)
    return describe(spec, scene.context[:, ::-1], scene.instances[:, ::-1])


def test_patches_tell_what_their_pixels_show(pictures: Pictures) -> None:
    names = (*(word.name for word in vocabulary().classes), *context_names()[1:])
    scenes = [draw_scene(plan_scene(5, SPLIT, index, free=True)) for index in range(40)]
    scenes = [scene for scene in scenes if scene.metadata["labels"]]
    assert pictures.patches.shape == (len(scenes), 8, 8, len(names))
    assert (pictures.patches.sum(dim=3, dtype=torch.int64) == 144).all()
    for row, scene in enumerate(scenes[:6]):
        for name in names[:8]:
            value = 1 + names.index(name)
            assert pictures.patches[row, 3, 5, value - 1] == (scene.mask[36:48, 60:72] == value).sum()
        for name in names[8:]:
            value = context_names().index(name)
            shown = (scene.mask[36:48, 60:72] == 0) & (scene.context[36:48, 60:72] == value)
            assert pictures.patches[row, 3, 5, names.index(name)] == shown.sum()


def test_questions_are_about_what_is_shown_and_answers_are_the_generator_s(pictures: Pictures) -> None:
    rows = torch.arange(len(pictures.images))
    is_mirrored = rows % 2 == 1
    topics, classes, answers = ask(pictures, rows, is_mirrored, 6, stream("test", 1))
    for row in rows.tolist():
        assert len(set(topics[row].tolist())) == 6
        shown = pictures.classes[row].tolist()
        for topic, label, word in zip(topics[row], classes[row], answers[row], strict=True):
            assert label >= 0
            slot = shown.index(int(label))
            assert word == pictures.answers[row, int(is_mirrored[row]), slot, topic]


def test_questions_asked_together_do_not_read_each_other(pictures: Pictures) -> None:
    model, texts = new_vqa(0).eval(), tokenised(new_vqa_tokenizer())
    rows = torch.arange(4)
    topics, classes, answers = ask(pictures, rows, rows > 1, 5, stream("test", 2))
    pixels = normalised(pictures.images[rows])
    with torch.no_grad():
        seen = model.vision_model(pixel_values=pixels).last_hidden_state
        together = answer_loss(model, texts, seen, topics, classes, answers)
        singly = [
            model(
                input_ids=texts.questions[topics[row, place], classes[row, place]][None],
                attention_mask=texts.question_masks[topics[row, place], classes[row, place]][None],
                pixel_values=pixels[row : row + 1],
                labels=texts.answers[answers[row, place]][None],
            ).loss
            for row in range(4)
            for place in range(5)
        ]
    assert float(together) == pytest.approx(float(torch.stack(singly).mean()), rel=1e-4)


def test_the_tower_starts_from_the_teacher_s() -> None:
    teacher = CLIPModel.from_pretrained(str(CLIP_FOLDER), local_files_only=True, dtype=torch.float32).eval()
    model = new_vqa(0).eval()
    images = torch.from_numpy(
        np.stack([draw_scene(plan_scene(3, "probe", index)).image for index in range(8)])
    )
    pixels = normalised(images)
    start_from_teacher(model, teacher, pixels)
    small = torch.einsum("bcij,yi,xj->bcyx", pixels, shrinking(96, 64), shrinking(96, 64))
    with torch.no_grad():
        seen = model.vision_model(pixel_values=pixels).last_hidden_state
        states = teacher.vision_model(pixel_values=small).last_hidden_state
        expected = teacher.vision_model.post_layernorm(states)
        other = new_vqa(0).eval().vision_model(pixel_values=pixels).last_hidden_state
    alike = torch.nn.functional.cosine_similarity(seen, expected, dim=2).mean()
    unlike = torch.nn.functional.cosine_similarity(other, expected, dim=2).mean()
    assert alike > 0.6 > 0.2 > unlike


def test_a_saved_vqa_comes_back(tmp_path: Path) -> None:
    model = new_vqa(1).eval()
    save_vqa(tmp_path / "vqa", model, {"seed": 1})
    back = BlipForQuestionAnswering.from_pretrained(str(tmp_path / "vqa"), local_files_only=True)
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name].float(), value.half().float()), name
    names = {path.name for path in (tmp_path / "vqa").iterdir()}
    expected = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "vqa.json"}
    assert names == expected | {"tokenizer_config.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["vqa"]
    image = draw_scene(plan_scene(0, "probe", 0)).image
    assert len(load_vqa(tmp_path / "vqa").answer([image], [["what is above the cow?"]])[0]) == 1


def test_a_folder_with_other_files_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match="holds something else"):
        train_vqa(tmp_path, steps=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_training_repeats_itself_and_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vqa_training, "CHECKPOINT_EVERY", 2)
    settings = {"steps": 4, "batch_size": 8, "pictures": 16, "seed": 3}
    train_vqa(tmp_path / "whole", **settings)

    class StopError(Exception):
        pass

    step = vqa_training._step

    def fails_at_three(*arguments: object, **named: object) -> object:
        if named["step"] == 3:
            raise StopError
        return step(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(vqa_training, "_step", fails_at_three)
        with pytest.raises(StopError):
            train_vqa(tmp_path / "halves", **settings)
    assert not (tmp_path / "halves").exists()
    train_vqa(tmp_path / "halves", **settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["halves", "whole"]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "halves" / path.name).read_bytes()


def test_an_answer_table_holds_every_topic() -> None:
    scene = draw_scene(plan_scene(0, SPLIT, 1, free=True))
    classes, answers = answer_table(scene.metadata)
    assert answers.shape == (2, 2, len(TOPICS))
    assert (classes >= 0).sum() == len(scene.metadata["labels"])
