// Tables sort by the column whose head is clicked: numbers by value, texts by letters.
document.querySelectorAll("th").forEach((head) => head.addEventListener("click", () => {
  const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") !== "descending";
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const of = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const empty = (row) => of(row) === "";
  const order = (a, b) => isNaN(of(a)) || isNaN(of(b)) ? of(b).localeCompare(of(a)) : of(b) - of(a);
  [...body.rows].sort((a, b) => empty(a) - empty(b) || (down ? order(a, b) : order(b, a))).forEach((row) => body.append(row));
}));
// A slider lets the map show through the photograph.
document.querySelectorAll(".compare input").forEach((slider) => slider.addEventListener("input", () =>
  slider.parentElement.style.setProperty("--share", slider.value / 100)));
