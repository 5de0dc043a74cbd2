"""The dense CRF as a refiner: unaries, backgrounds, large images, batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from wsss.activation.store import MapStore
from wsss.crf import PRESETS, DenseCrf, unary_from_labels, unary_from_logits, unary_from_probabilities
from wsss.errors import StageError
from wsss.refiners.dense_crf import DenseCrf as Refiner
from wsss.refiners.dense_crf import DenseCrfConfig
from wsss.types import ActivationMaps, Sample

NAMES = ("background", "cat", "dog")


def refiner(**values) -> Refiner:
    return Refiner(DenseCrfConfig(**values), NAMES)


def photograph(size: tuple[int, int] = (24, 30)) -> Sample:
    image = np.full((*size, 3), 60, np.uint8)
    image[4:18, 6:20] = (220, 160, 40)
    noise = np.random.default_rng(0).integers(0, 8, image.shape)
    return Sample("p", (image + noise).astype(np.uint8), np.array([True, True]))


def rough_maps(size: tuple[int, int] = (24, 30)) -> ActivationMaps:
    scores = torch.rand(2, *size, generator=torch.Generator().manual_seed(1)) * 0.2
    scores[1, 5:16, 8:19] += 0.7
    return ActivationMaps(torch.tensor([1, 2]), scores)


def test_hard_labels_follow_the_background_score() -> None:
    sample, maps = photograph(), rough_maps()
    found = refiner(background_score=0.3).refine(sample, maps)
    unary = unary_from_labels(maps.with_background(0.3).to_positions(), 3)
    expected = DenseCrf(sample.image, PRESETS["irn"]).marginals(unary)
    torch.testing.assert_close(torch.cat([found.background[None], found.scores]), expected)
    mask = found.to_mask()
    assert bool((mask[4:18, 6:20] == 2).all())
    assert int((mask > 0).sum()) == 14 * 14


def test_scores_and_softmax_are_unaries_too() -> None:
    sample, maps = photograph(), rough_maps()
    power = refiner(unary="scores", background_power=4.0).refine(sample, maps)
    known = maps.with_background_power(4.0)
    scores = torch.cat([known.background[None], known.scores])
    crf = DenseCrf(sample.image, PRESETS["irn"])
    torch.testing.assert_close(power.scores, crf.marginals(unary_from_probabilities(scores))[1:])
    constant = refiner(unary="softmax", background_score=0.15).refine(sample, maps)
    scores = torch.cat([torch.full((1, 24, 30), 0.15), maps.scores])
    torch.testing.assert_close(constant.scores, crf.marginals(unary_from_logits(scores))[1:])


def test_a_background_that_is_there_is_kept() -> None:
    sample, maps = photograph(), rough_maps().with_background(0.3)
    for values in ({"background_score": 0.9}, {"background_power": 9.0}, {}):
        found = refiner(**values).refine(sample, maps)
        torch.testing.assert_close(found.scores, refiner(background_score=0.3).refine(sample, maps).scores)


def test_maps_of_another_size_are_resized() -> None:
    sample, maps = photograph(), rough_maps((6, 8))
    found = refiner(background_score=0.3).refine(sample, maps)
    expected = refiner(background_score=0.3).refine(sample, maps.resized(24, 30))
    assert torch.equal(found.scores, expected.scores)


def test_a_large_image_is_shrunk_and_its_marginals_are_enlarged() -> None:
    sample, maps = photograph(), rough_maps()
    found = refiner(background_score=0.3, max_pixels=200).refine(sample, maps)
    assert found.size == (24, 30)
    whole = refiner(background_score=0.3).refine(sample, maps)
    assert float((found.to_mask() == whole.to_mask()).float().mean()) > 0.85
    torch.testing.assert_close(found.scores.sum(0) + found.background, torch.ones(24, 30))


def test_the_automatic_background_score_is_chosen_once_and_kept(tmp_path: Path) -> None:
    sample, store = photograph(), MapStore(tmp_path / "maps")
    store.write("p", rough_maps(), image_size=(24, 30))

    class One:
        def sample(self, image_id: str) -> Sample:
            return sample

    crf = refiner()
    with pytest.raises(StageError, match="Call `fit` first"):
        crf.refine(sample, rough_maps())
    crf.fit(One(), ["p"], store, tmp_path / "fit", seed=0)
    chosen = json.loads((tmp_path / "fit" / "background_score.json").read_text())
    assert chosen["source"] == "automatic"
    expected = refiner(background_score=chosen["value"]).refine(sample, rough_maps())
    assert torch.equal(crf.refine(sample, rough_maps()).scores, expected.scores)
    (tmp_path / "fit" / "background_score.json").write_text('{"value": 0.9}')
    again = refiner()
    again.fit(One(), ["p"], store, tmp_path / "fit", seed=0)
    assert again._background_score == 0.9


def test_nothing_is_chosen_for_maps_with_a_background(tmp_path: Path) -> None:
    store = MapStore(tmp_path / "maps")
    store.write("p", rough_maps().with_background(0.2), image_size=(24, 30))
    crf = refiner()
    crf.fit(None, ["p"], store, tmp_path / "fit", seed=0)
    assert not (tmp_path / "fit").exists()


@pytest.mark.gpu
def test_an_accelerator_refines_a_batch_like_its_images_on_a_cpu() -> None:
    crf = refiner(background_score=0.3)
    first = rough_maps()
    second = ActivationMaps(torch.tensor([2]), first.scores[1:])
    found = crf.refine_batch([photograph()] * 2, [first.to("cuda"), second.to("cuda")])
    for refined, maps in zip(found, (first, second), strict=True):
        expected = crf.refine(photograph(), maps)
        assert refined.scores.device.type == "cuda"
        torch.testing.assert_close(refined.scores.cpu(), expected.scores, atol=5e-4, rtol=0)


def test_absent_labels_of_a_batch_take_nothing() -> None:
    """The padding that batches on accelerators use, on the CPU."""
    from wsss.refiners.dense_crf import ABSENT

    sample, maps = photograph(), rough_maps()
    unary = unary_from_labels(maps.with_background(0.3).to_positions(), 3)
    padded = torch.cat([unary, torch.full((2, 24, 30), ABSENT)])
    crf = DenseCrf(sample.image[None], PRESETS["irn"])
    found = crf.marginals(padded[None])[0]
    torch.testing.assert_close(found[:3], crf.marginals(unary[None])[0])
    assert float(found[3:].abs().max()) == 0


def test_presets_have_the_values_of_their_papers() -> None:
    made = {name: DenseCrfConfig.model_validate(values) for name, values in Refiner.presets.items()}
    found = {
        name: (own.unary, own.background_score, own.background_power, own.parameters.iterations)
        for name, own in made.items()
    }
    assert found == {
        "irn": ("labels", "automatic", None, 10),
        "clims_camera_ready": ("labels", 0.25, None, 1),
        "psa": ("scores", "automatic", 4.0, 10),
        "clip_es": ("scores", "automatic", 1.0, 10),
        "clip_es_legacy": ("scores", "automatic", 1.0, 10),
        "vwl": ("softmax", 0.15, None, 10),
    }
    for name in ("irn", "psa", "clip_es", "clip_es_legacy", "vwl"):
        assert made[name].parameters == PRESETS[name]
    assert made["clims_camera_ready"].parameters == PRESETS["clims"].model_copy(update={"iterations": 1})
    assert all(own.certainty == 0.7 for own in made.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"background_score": 1.5}, "less than or equal to 1"),
        ({"background_score": 0.2, "background_power": 4.0}, "exclude each other"),
        ({"certainty": 1.0}, "less than 1"),
        ({"parameters": {"appearance_rgb_std": 0}}, "greater than 0"),
    ],
)
def test_wrong_settings_are_refused(values, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refiner(**values)
