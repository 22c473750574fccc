"use strict";
// A click or Enter enlarges a picture; Escape or a click closes it.
const zoom = document.createElement("dialog");
zoom.className = "zoom";
const large = document.createElement("img");
zoom.append(large);
document.body.append(zoom);
zoom.addEventListener("click", () => zoom.close());
function enlarge(event) {
  const picture = event.target.closest("main img");
  if (!picture || (event.type === "keydown" && event.key !== "Enter")) return;
  large.src = picture.src;
  large.alt = picture.alt;
  large.className = picture.className;
  zoom.showModal();
}
document.addEventListener("click", enlarge);
document.addEventListener("keydown", enlarge);

for (const slides of document.querySelectorAll(".slides")) {
  const figures = [...slides.children];
  if (figures.length < 2) continue;
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: figures.length - 1, value: figures.length - 1 });
  slider.setAttribute("aria-label", "which of the pictures is shown");
  const show = () => figures.forEach((figure, n) => { figure.hidden = n !== Number(slider.value); });
  slider.addEventListener("input", show);
  slides.prepend(slider);
  show();
}
