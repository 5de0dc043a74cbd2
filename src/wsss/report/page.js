"use strict";
// The page is complete without this script; it moves the background score and enlarges pictures.

const make = (name, attributes, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

// Masks at a background score: a class wins where its score is above the background's and is the highest;
// ties go to the background, then to the first class, as in the library.
const layerOf = (image) => {
  const [width, height] = ["width", "height"].map((side) => Number(image.getAttribute(side))); // not as shown
  const { what, source, classes, colours, maps } = image.dataset;
  const canvas = make("canvas", { class: "layer", role: "img", width, height });
  const levels = Uint8Array.from(atob(maps), (letter) => letter.charCodeAt(0));
  const paints = colours.split(" ").map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  const count = classes ? classes.split(" ").length : 0;
  const context = canvas.getContext("2d");
  const drawn = context.createImageData(width, height);
  const draw = (score) => {
    let found = 0;
    for (let pixel = 0; pixel < width * height; pixel += 1) {
      let best = score, winner = -1;
      for (let place = 0; place < count; place += 1) {
        const own = levels[place * width * height + pixel] / 255;
        if (own > best) [best, winner] = [own, place];
      }
      found += winner >= 0;
      drawn.data.set(winner < 0 ? [0, 0, 0, 0] : [...paints[winner], 255], 4 * pixel);
    }
    context.putImageData(drawn, 0, 0);
    const share = Math.round((100 * found) / (width * height));
    canvas.setAttribute("aria-label", `${what} at background score ${score.toFixed(2)}: ${share}% of the image`);
  };
  canvas.dataset.source = source;
  image.replaceWith(canvas);
  return draw;
};

const panel = document.getElementById("try");
if (panel) {
  const slider = panel.querySelector("input[type=range]");
  const layers = [...panel.querySelectorAll("img.layer")].map((image) => ({ image, draw: null }));
  const places = [...document.querySelectorAll(".over-score .area")].map((area) => {
    const line = make("i", { class: "cursor", "aria-hidden": "true" });
    area.append(line);
    return line;
  });
  const cells = [...panel.querySelectorAll(".miou")].map((cell) => [cell, cell.dataset.miou.split(" ")]);
  const show = () => {
    const score = slider.valueAsNumber, text = score.toFixed(2);
    for (const layer of layers) {
      layer.draw ??= layerOf(layer.image);
      layer.draw(score);
    }
    for (const level of panel.querySelectorAll(".level")) level.textContent = text;
    for (const line of places) line.style.left = `${100 * score}%`;
    for (const [cell, values] of cells) cell.textContent = values[Math.round(100 * score)];
    for (const button of panel.querySelectorAll(".jump")) button.ariaPressed = String(button.value === text);
    const scores = cells.map(([cell]) => `${cell.parentElement.firstElementChild.textContent} ${cell.textContent}`);
    slider.setAttribute("aria-valuetext", [text, ...scores].join(", "));
  };
  slider.addEventListener("input", show);
  for (const button of panel.querySelectorAll(".jump")) {
    button.disabled = false;
    button.addEventListener("click", () => {
      slider.value = button.value;
      show();
    });
  }
  panel.querySelector(".control").hidden = false;
  panel.classList.add("works");
  show();
}

// Pictures enlarge with a click or Enter; arrow keys go to the neighbours, Escape closes.
const caption = make("figcaption", { "aria-live": "polite" });
const large = make("img", { alt: "" });
const closing = make("button", { type: "button" }, "Close");
const dialog = make("dialog", { class: "large", "aria-label": "Enlarged picture" }, make("figure", {}, large, caption), closing);
document.body.append(dialog);
let shown = null;

const neighbour = (button, step) => {
  const buttons = [...button.closest(".tiles").querySelectorAll(".enlarge")];
  return buttons[buttons.indexOf(button) + step];
};
const enlarge = (button) => {
  const image = button.firstElementChild;
  shown = button;
  large.src = image.src;
  large.alt = image.alt;
  caption.textContent = button.parentElement.querySelector("figcaption").textContent;
  if (!dialog.open) dialog.showModal();
};
const steps = { ArrowLeft: -1, ArrowRight: 1 };
const reach = (button) => {
  for (const other of button.closest(".tiles").querySelectorAll(".enlarge")) other.tabIndex = other === button ? 0 : -1;
  button.focus();
};

for (const tiles of document.querySelectorAll(".tiles")) {
  tiles.querySelectorAll("figure > img").forEach((image, place) => {
    const button = make("button", { type: "button", class: "enlarge", title: "Enlarge" });
    button.tabIndex = place ? -1 : 0;
    image.replaceWith(button);
    button.append(image);
    button.addEventListener("click", () => enlarge(button));
    button.addEventListener("keydown", (event) => {
      const next = event.key in steps && neighbour(button, steps[event.key]);
      if (next) {
        event.preventDefault();
        reach(next);
      }
    });
  });
}
closing.addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("keydown", (event) => {
  const next = event.key in steps && neighbour(shown, steps[event.key]);
  if (next) enlarge(next);
});
dialog.addEventListener("close", () => reach(shown));
