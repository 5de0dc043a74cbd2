import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from wsss.data import Dataset, ScenesConfig, WithoutMasks, open_dataset
from wsss.data.scenes import BACKGROUND_NAMES, CLASS_NAMES, WORLD_VERSION
from wsss.errors import DataError


def test_a_world_is_opened_with_all_it_knows(tiny_scenes) -> None:
    assert isinstance(tiny_scenes, Dataset)
    assert tiny_scenes.name == "scenes"
    assert tiny_scenes.class_names == CLASS_NAMES
    assert (len(tiny_scenes.ids("train")), len(tiny_scenes.ids("val"))) == (12, 6)
    assert set(BACKGROUND_NAMES) <= set(tiny_scenes.context_names.values())
    assert 0 not in tiny_scenes.context_names
    assert tiny_scenes.classes[0].background_texts


def test_labels_words_and_maps_agree_with_the_metadata(tiny_scenes) -> None:
    for image_id in tiny_scenes.ids("trainval"):
        metadata = tiny_scenes.metadata(image_id)
        present = np.flatnonzero(tiny_scenes.image_labels(image_id)) + 1
        assert [tiny_scenes.class_names[i] for i in present] == metadata["labels"]
        assert tiny_scenes.scene_words(image_id) == tuple(metadata["backgrounds"])
        context = tiny_scenes.context(image_id)
        mask = tiny_scenes.sample(image_id, with_mask=True).mask
        assert context.shape == mask.shape
        assert not context[(mask > 0) & (mask < 255)].any()
        shown = {tiny_scenes.context_names[value] for value in np.unique(context).tolist() if value}
        assert set(metadata["backgrounds"]) <= shown


def test_training_sees_neither_masks_nor_context(tiny_scenes) -> None:
    guarded = WithoutMasks(tiny_scenes)
    assert guarded.context(guarded.ids("train")[0]) is None
    assert guarded.context_names == {}
    assert guarded.scene_words(guarded.ids("train")[0])


def test_another_or_an_unfinished_world_is_refused(tiny_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"doesn't hold world 0 with 1600 \+ 400 images"):
        open_dataset(ScenesConfig(), root=tiny_tree)
    with pytest.raises(DataError, match="doesn't hold world"):
        open_dataset(ScenesConfig(), root=tmp_path)
    with pytest.raises(DataError, match="got no `root`"):
        open_dataset(ScenesConfig())


def test_another_version_is_refused() -> None:
    with pytest.raises(ValidationError, match=f"generates worlds of version {WORLD_VERSION}"):
        ScenesConfig(version=WORLD_VERSION + 1)


def test_the_fingerprint_covers_the_metadata(tiny_scenes, tiny_tree: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(tiny_tree, tmp_path / "tree"))
    config = ScenesConfig(world=7, train=12, val=6, size=64)
    assert open_dataset(config, root=copied).fingerprint() == tiny_scenes.fingerprint()
    assert open_dataset(config, root=copied).mask_fingerprint() == tiny_scenes.mask_fingerprint()
    lines = (copied / "scenes.jsonl").read_text().splitlines()
    (copied / "scenes.jsonl").write_text(
        "\n".join([json.dumps({**json.loads(lines[0]), "x": 1}), *lines[1:]])
    )
    assert open_dataset(config, root=copied).fingerprint() != tiny_scenes.fingerprint()
    with pytest.raises(DataError, match="There is no image `x`"):
        tiny_scenes.metadata("x")
