"use strict";
// Sorts a table by the column whose heading is pressed: by the figures as measured, not as shown.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        const data = cell.querySelector("data");
        return data ? Number(data.value) : cell.textContent.trim();
      };
      const compare = (a, b) => {
        if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
        return typeof a === "number" ? -1 : 1;
      };
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [key(row), row]);
      // What has no figure stays last, whichever way the rest is sorted.
      rows.sort(([a], [b]) => (down && typeof a === typeof b ? -compare(a, b) : compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
