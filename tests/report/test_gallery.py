from __future__ import annotations

from wsss.report.gallery import choose

IDS = [f"image{number}" for number in range(30)]


def test_images_are_chosen_where_gains_and_losses_are_largest() -> None:
    first = dict.fromkeys(IDS, 0.5)
    last = {image_id: number / 29 for number, image_id in enumerate(IDS)}
    groups = dict(choose(IDS, [first, last], 2))
    assert groups["gain"] == ("image29", "image28")
    assert groups["loss"] == ("image0", "image1")
    assert groups["best"] == ("image27", "image26")
    assert groups["worst"] == ("image2", "image3")
    assert set(groups["median"]) == {"image14", "image15"}


def test_no_image_is_shown_twice() -> None:
    last = dict.fromkeys(IDS[:4], 0.1)
    chosen = [image_id for _, ids in choose(IDS[:4], [last], 3) for image_id in ids]
    assert sorted(chosen) == IDS[:4]


def test_nothing_is_called_a_loss_when_every_image_gained() -> None:
    first, last = dict.fromkeys(IDS, 0.2), dict.fromkeys(IDS, 0.3)
    assert dict(choose(IDS, [first, last], 3))["loss"] == ()


def test_one_recipe_has_no_gains() -> None:
    headings = [heading for heading, _ in choose(IDS, [dict.fromkeys(IDS, 0.3)], 3)]
    assert headings == ["best", "median", "worst"]


def test_without_scores_images_are_taken_at_even_distances() -> None:
    [(heading, chosen)] = choose(IDS, [{}, {}], 2)
    assert heading == "examples"
    assert len(chosen) == 6
    assert chosen[0] == IDS[0]
    assert chosen[-1] == IDS[-1]
    assert choose([], [{}], 2) == [("examples", ())]


def test_images_that_one_recipe_lacks_are_left_out() -> None:
    first, last = dict.fromkeys(IDS[:5], 0.2), dict.fromkeys(IDS[3:], 0.3)
    chosen = {image_id for _, ids in choose(IDS, [first, last], 9) for image_id in ids}
    assert chosen == set(IDS[3:5])
