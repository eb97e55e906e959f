"use strict";
/* Tables that can be sorted and filtered, and text that can be copied. */

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.classList.contains("number"));
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].map((row) => [keyOf(row.cells[column]), row]);
    rows.sort(([a], [b]) => compare(a, b, down ? -1 : 1));
    body.append(...rows.map(([, row]) => row));
  }));
}

function keyOf(cell) {
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" ? null : cell.classList.contains("number") && !Number.isNaN(+text) ? +text : text;
}

/* What is empty stands last, whichever way. */
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function filter(id) {
  const words = (document.querySelector(`[data-filters="${id}"]`)?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const flagged = document.querySelector(`[data-flagged="${id}"]`)?.checked ?? false;
  const rows = [...document.getElementById(id).tBodies[0].rows];
  let seen = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word)) || (flagged && !("flag" in row.dataset));
    seen += !row.hidden;
  }
  const output = document.querySelector(`[data-counts="${id}"]`);
  if (output) output.textContent = seen === rows.length ? "" : `${seen} of ${rows.length}`;
}

for (const input of document.querySelectorAll("[data-filters]")) input.addEventListener("input", () => filter(input.dataset.filters));
for (const input of document.querySelectorAll("[data-flagged]")) input.addEventListener("change", () => filter(input.dataset.flagged));

for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", async () => {
  const place = document.getElementById(button.dataset.copies), said = button.nextElementSibling;
  getSelection().selectAllChildren(place);
  try { await navigator.clipboard.writeText(place.innerText); said.textContent = "Copied."; }
  catch { said.textContent = document.execCommand("copy") ? "Copied." : "Selected; copy it with Ctrl-C."; }
});
