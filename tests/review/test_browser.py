"""The page in a real browser: keys step through the images, and its console stays empty."""

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
from builder import AUTOMATIC, CONFIG, Invented, build

from wsss.engine.map_work import CHOSEN
from wsss.review import review

NAMES = ("chromium", "chromium-browser", "google-chrome")
KEYS = ("j", "ArrowRight", "ArrowDown", "k", "ArrowLeft", "ArrowUp", "ArrowUp", "End", "j", "Home")
PLACES = (2, 3, 4, 3, 2, 1, 1, 6, 6, 1)

PROBE = """
addEventListener("load", () => {
  const images = [...document.querySelectorAll("article")];
  const seen = () => images.map((image, at) => image.offsetParent ? at + 1 : 0).filter(Boolean);
  const press = (key) => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const said = { start: seen(), keys: [] };
  for (const key of KEYS) {
    press(key);
    said.keys.push({ seen: seen(), place: document.getElementById("place").textContent });
  }
  document.getElementById("on").click();
  said.next = seen();
  said.focused = document.activeElement.id;
  document.getElementById("back").click();
  said.first = document.getElementById("back").disabled;
  document.getElementById("all").click();
  said.all = seen();
  const told = document.createElement("pre");
  told.textContent = JSON.stringify(said);
  document.body.append(told);
});
"""


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, tiny_scenes: Any, tiny_tree: Path
) -> tuple[dict[str, Any], list[str]]:
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser ({', '.join(NAMES)}); none is installed")
    folder = tmp_path_factory.mktemp("browser")
    run = build(folder / "runs", tiny_scenes, tiny_tree, CONFIG, Invented())
    masks = next((folder / "runs" / "stages").glob("pseudo-masks-*"))
    (masks / CHOSEN).write_text(json.dumps({"value": AUTOMATIC}))
    page = review([run], top=6, out=folder / "out").page
    probe = PROBE.replace("KEYS", json.dumps(KEYS))
    allowed = base64.b64encode(hashlib.sha256(probe.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8").replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    probed = folder / "probed.html"
    probed.write_text(text.replace("</body>", f"<script>{probe}</script></body>"), encoding="utf-8")
    command = [
        *(program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"),
        *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--window-size=1280,900"),
        *("--dump-dom", probed.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert found, f"the page said nothing: {console or done.stderr[-2000:]}"
    return json.loads(html.unescape(found[1])), console


def test_the_browser_does_not_complain(told: tuple[dict[str, Any], list[str]]) -> None:
    assert told[1] == []


def test_keys_step_through_the_images(told: tuple[dict[str, Any], list[str]]) -> None:
    said, _ = told
    assert said["start"] == [1]
    assert [state["seen"] for state in said["keys"]] == [[place] for place in PLACES]
    assert [state["place"] for state in said["keys"]] == [f"{place} of 6" for place in PLACES]


def test_buttons_do_the_same_and_all_images_can_be_shown(told: tuple[dict[str, Any], list[str]]) -> None:
    said, _ = told
    assert said["next"] == [2]
    assert said["focused"] == "image-2"
    assert said["first"] is True
    assert said["all"] == np.arange(1, 7).tolist()
