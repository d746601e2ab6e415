const rows = [...document.querySelectorAll("tr[data-setting]")];
const boxes = [...document.querySelectorAll("input[data-filter]")];
const most = document.getElementById("most-epsilon");
const best = document.getElementById("only-frontier");
const count = document.getElementById("shown");
function apply() {
  const off = boxes.filter(b => !b.checked).map(b => [b.dataset.filter, b.value]);
  const limit = most.value === "" ? Infinity : Number(most.value);
  const shown = new Set(), series = new Set();
  for (const row of rows) {
    const epsilon = row.dataset.epsilon === "" ? Infinity : Number(row.dataset.epsilon);
    const hidden = off.some(([key, value]) => row.dataset[key] === value) || epsilon > limit
      || (best.checked && row.dataset.pareto !== "yes");
    row.hidden = hidden;
    if (!hidden) { shown.add(row.dataset.setting); series.add(row.dataset.series); }
  }
  for (const e of document.querySelectorAll("svg [data-setting]")) e.style.display = shown.has(e.dataset.setting) ? "" : "none";
  for (const e of document.querySelectorAll("svg [data-series]")) e.style.display = series.has(e.dataset.series) ? "" : "none";
  count.textContent = `${shown.size} of ${rows.length} settings shown`;
}
for (const control of [...boxes, most, best]) control.addEventListener("input", apply);
apply();
