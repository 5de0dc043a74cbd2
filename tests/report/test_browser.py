"""The page in a real browser: no complaint on its console, a slider that redraws, room on a phone."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builder import AUTOMATIC, CAM, CLIMS
from html_check import Page
from test_embedded_maps import decoded, slow_mask

from wsss.report.class_colours import class_colour
from wsss.report.page import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = 390, 1200
SCORES = (0.0, 0.2, AUTOMATIC, 0.73, 0.99)

PROBE = """
addEventListener("load", () => {
  const slider = document.getElementById("level"), said = {};
  const layers = () => [...document.querySelectorAll("#try canvas")];
  const read = () => ({
    masks: layers().map((canvas) => canvas.toDataURL()),
    labels: layers().map((canvas) => canvas.getAttribute("aria-label")),
    miou: [...document.querySelectorAll(".miou")].map((cell) => cell.textContent),
    words: slider.getAttribute("aria-valuetext"),
    shown: [...document.querySelectorAll(".level")].map((level) => level.textContent),
    cursor: document.querySelector(".cursor").style.left,
  });
  said.start = read();
  said.at = SCORES.map((score) => {
    slider.value = score;
    slider.dispatchEvent(new Event("input"));
    return read();
  });
  document.querySelector(".jump").click();
  said.jumped = slider.value;
  const press = (key) => {
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  };
  const [first, second] = document.querySelectorAll("#images .tiles .enlarge");
  first.focus();
  press("ArrowRight");
  said.moved = document.activeElement === second && second.tabIndex === 0 && first.tabIndex === -1;
  second.click();
  const dialog = document.querySelector("dialog");
  said.enlarged = dialog.open && dialog.querySelector("img").src === second.firstElementChild.src;
  press("ArrowLeft");
  said.stepped = dialog.querySelector("img").src === first.firstElementChild.src;
  dialog.querySelector("button").click();
  setTimeout(() => {
    said.closed = !dialog.open && document.activeElement === first;
    said.hidden = document.querySelector(".control").hidden;
    const root = document.documentElement;
    said.room = [innerWidth, root.scrollWidth, root.clientWidth];
    said.dark = getComputedStyle(document.body).backgroundColor;
    parent.postMessage(JSON.stringify(said), "*");
  }, 50);
});
"""

FRAME = """<!DOCTYPE html><meta charset="utf-8"><body><script>
addEventListener("message", (event) => {
  const told = document.createElement("pre");
  told.textContent = event.data;
  document.body.append(told);
});
</script><iframe src="probed.html" style="width:WIDTHpx;height:800px;border:0"></iframe>"""


def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser ({', '.join(NAMES)}); none is installed")
    return found


def opened(page: Path, folder: Path, width: int, *options: str) -> tuple[dict[str, Any], list[str]]:
    """What the probe says of a page that is `width` pixels wide, and the lines of the browser's console."""
    program = browser()
    folder.mkdir()
    probe = PROBE.replace("SCORES", json.dumps(SCORES))
    allowed = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8").replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    text = text.replace("</body>", f"<script>{probe}</script></body>")
    (folder / "probed.html").write_text(text, encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"),
        *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--window-size=1280,900"),
        *(*options, "--dump-dom", (folder / "frame.html").as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    told = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert told, f"the page said nothing: {console or done.stderr[-2000:]}"
    return json.loads(html.unescape(told[1])), console


@pytest.fixture(scope="module")
def page(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(runs(CAM, CLIMS), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def on_a_desk(page: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    return opened(page, tmp_path_factory.mktemp("desk") / "shown", DESK)


def test_the_browser_does_not_complain(on_a_desk: tuple[dict[str, Any], list[str]]) -> None:
    assert on_a_desk[1] == []


def test_the_slider_redraws_the_masks_of_the_embedded_maps(
    page: Path, on_a_desk: tuple[dict[str, Any], list[str]]
) -> None:
    said, _ = on_a_desk
    parsed = Page(page.read_text(encoding="utf-8"))
    layers = [attributes for _, attributes in parsed.tags if attributes.get("class") == "layer"]
    assert not said["hidden"]
    assert len({tuple(state["masks"]) for state in said["at"]}) == len(SCORES)
    for score, state in zip(SCORES, said["at"], strict=True):
        assert set(state["shown"]) == {f"{score:.2f}"}
        assert len(state["masks"]) == len(layers)
        for layer, drawn, label in zip(layers, state["masks"], state["labels"], strict=True):
            mask = embedded_mask(layer, score)
            assert (decoded(drawn) == painted(mask)).all()
            assert (
                label == f"{layer['data-what']} at background score {score:.2f}: {share(mask)}% of the image"
            )
    for layer, drawn in zip(layers, said["start"]["masks"], strict=True):  # as it was without the script
        assert (decoded(drawn) == decoded(str(layer["src"]))).all()


def test_the_slider_tells_the_score_and_its_miou(
    page: Path, on_a_desk: tuple[dict[str, Any], list[str]]
) -> None:
    said, _ = on_a_desk
    parsed = Page(page.read_text(encoding="utf-8"))
    rows = [str(a["data-miou"]).split() for _, a in parsed.tags if "data-miou" in a]
    for score, state in zip(SCORES, said["at"], strict=True):
        wanted = [row[round(100 * score)] for row in rows]
        assert state["miou"] == wanted
        assert state["words"] == f"{score:.2f}, CAM map {wanted[0]}, CLIMS map {wanted[1]}"
        assert float(state["cursor"].rstrip("%")) == pytest.approx(100 * score)
    assert said["jumped"] == "0.15"


def test_pictures_enlarge_by_keyboard(on_a_desk: tuple[dict[str, Any], list[str]]) -> None:
    said, _ = on_a_desk
    wanted = ("moved", "enlarged", "stepped", "closed")
    assert [name for name in wanted if said[name] is True] == list(wanted)


def test_a_dark_phone_has_room_for_the_page(
    page: Path, tmp_path: Path, on_a_desk: tuple[dict[str, Any], list[str]]
) -> None:
    said, console = opened(page, tmp_path / "phone", PHONE, "--blink-settings=preferredColorScheme=0")
    width, needed, there = said["room"]
    assert width == PHONE
    assert needed <= there <= PHONE
    assert console == []
    assert brightness(said["dark"]) < 60 < 200 < brightness(on_a_desk[0]["dark"])


def embedded_mask(layer: dict[str, Any], score: float) -> np.ndarray:
    class_ids = [int(word) for word in layer["data-classes"].split()]
    levels = np.frombuffer(base64.b64decode(layer["data-maps"]), dtype=np.uint8)
    return slow_mask(
        class_ids, levels.reshape(len(class_ids), int(layer["height"]), int(layer["width"])), score
    )


def painted(mask: np.ndarray) -> np.ndarray:
    """RGBA of a mask: classes in their colours, background transparent."""
    shown = np.zeros((*mask.shape, 4), dtype=np.uint8)
    for class_id in np.unique(mask[mask > 0]).tolist():
        shown[mask == class_id] = (*(int(class_colour(class_id)[at : at + 2], 16) for at in (1, 3, 5)), 255)
    return shown


def share(mask: np.ndarray) -> int:
    return int(np.floor(100 * (mask > 0).mean() + 0.5))


def brightness(colour: str) -> float:
    return float(np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]))
