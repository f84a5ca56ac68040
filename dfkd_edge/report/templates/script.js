"use strict";
const viewer = document.getElementById("viewer");
for (const button of document.querySelectorAll(".picture")) {
  button.addEventListener("click", () => {
    const image = viewer.querySelector("img");
    image.src = button.querySelector("img").src;
    image.alt = viewer.querySelector("p").textContent = button.dataset.caption;
    viewer.showModal();
  });
}
viewer.addEventListener("click", () => viewer.close());
for (const map of document.querySelectorAll(".map")) {
  const chips = [...map.querySelectorAll(".chip")];
  const pick = (group) => {
    map.classList.toggle("picking", group !== null);
    for (const point of map.querySelectorAll("circle")) {
      point.classList.toggle("picked", point.dataset.g === group);
    }
  };
  const pressed = () => chips.find((chip) => chip.getAttribute("aria-pressed") === "true");
  for (const chip of chips) {
    chip.addEventListener("mouseenter", () => pick(chip.dataset.g));
    chip.addEventListener("mouseleave", () => pick(pressed()?.dataset.g ?? null));
    chip.addEventListener("click", () => {
      const wasPressed = chip === pressed();
      for (const other of chips) other.setAttribute("aria-pressed", "false");
      chip.setAttribute("aria-pressed", String(!wasPressed));
      pick(wasPressed ? null : chip.dataset.g);
    });
  }
}
