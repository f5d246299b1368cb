"use strict";
// Without this script all pictures are shown, one below the other.
(() => {
  const list = document.getElementById("panels");
  if (!list) return;
  const get = (name) => document.getElementById(name);
  const order = get("order"), place = get("place"), all = get("all");
  const keys = {
    gain: (panel) => -Number(panel.dataset.change),
    loss: (panel) => Number(panel.dataset.change),
    number: (panel) => Number(panel.dataset.number),
  };
  const panels = [...list.children];
  let current = 0;

  function show() {
    const everything = all.getAttribute("aria-pressed") === "true";
    panels.forEach((panel, index) => { panel.hidden = !everything && index !== current; });
    place.textContent = everything ? `all ${panels.length}` : `${current + 1} of ${panels.length}`;
    get("previous").disabled = get("next").disabled = everything;
  }

  function turn(step) {
    current = (current + step + panels.length) % panels.length;
    show();
  }

  function sort() {
    const key = keys[order.value];
    panels.sort((one, other) => key(one) - key(other));
    list.append(...panels);
    current = 0;
    show();
  }

  order.addEventListener("change", sort);
  get("previous").addEventListener("click", () => turn(-1));
  get("next").addEventListener("click", () => turn(1));
  all.addEventListener("click", () => {
    all.setAttribute("aria-pressed", String(all.getAttribute("aria-pressed") !== "true"));
    show();
  });
  document.addEventListener("keydown", (event) => {
    const inside = event.target.closest("#pictures") && event.target !== order;
    if (!inside || get("next").disabled || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "ArrowRight") turn(1);
    if (event.key === "ArrowLeft") turn(-1);
  });
  document.querySelector(".controls").hidden = false;
  sort();
})();
