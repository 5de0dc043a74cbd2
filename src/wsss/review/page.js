"use strict";
// One image at a time; without this script the page shows all of them below each other.
const images = [...document.querySelectorAll("article")];
const place = document.getElementById("place");
const bar = document.querySelector(".bar");
let current = Math.max(0, images.findIndex((image) => `#${image.id}` === location.hash));
let alone = true;

function show(number, scroll) {
  if (!images.length) return;
  current = Math.min(Math.max(number, 0), images.length - 1);
  images.forEach((image, at) => { image.hidden = alone && at !== current; });
  place.textContent = `${current + 1} of ${images.length}`;
  document.getElementById("back").disabled = current === 0;
  document.getElementById("on").disabled = current === images.length - 1;
  document.getElementById("all").setAttribute("aria-pressed", String(!alone));
  if (scroll) {
    images[current].focus({ preventScroll: alone });
    if (!alone) images[current].scrollIntoView({ block: "start" });
  }
}

const steps = { ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1 };
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const step = steps[event.key];
  if (step) show(current + step, true);
  else if (event.key === "Home") show(0, true);
  else if (event.key === "End") show(images.length - 1, true);
  else return;
  event.preventDefault();
});
document.getElementById("back").addEventListener("click", () => show(current - 1, true));
document.getElementById("on").addEventListener("click", () => show(current + 1, true));
document.getElementById("all").addEventListener("click", () => { alone = !alone; show(current, true); });
if (images.length) {
  bar.hidden = false;
  show(current, false);
}
