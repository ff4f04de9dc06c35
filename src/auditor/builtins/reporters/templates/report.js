"use strict";
const filters = Object.fromEntries([...document.querySelectorAll("[data-filter]")].map((each) => [each.dataset.filter, each]));
const count = document.querySelector("[data-count]");
function apply() {
  const { concept, arm, rows } = Object.fromEntries(Object.entries(filters).map(([name, each]) => [name, each.value]));
  let shown = 0;
  for (const box of document.querySelectorAll(".grid-box")) {
    box.hidden = concept !== "" && box.dataset.concept !== concept;
    for (const cell of box.querySelectorAll("[data-arm]")) cell.hidden = arm !== "" && cell.dataset.arm !== arm;
    for (const row of box.querySelectorAll("tbody tr")) {
      row.hidden = (rows === "first" && row.dataset.first !== "1") || (rows === "hit" && row.dataset.hit !== "1");
      if (!box.hidden && !row.hidden) shown += 1;
    }
  }
  count.textContent = `${shown} rows`;
}
for (const each of Object.values(filters)) each.addEventListener("change", apply);
addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });
apply();
