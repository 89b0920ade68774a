// Sorts the table by a click on a heading; without this the page is the same, in the order in which it was written.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const key = (row) => {
      const cell = row.cells[column];
      const text = cell.dataset.key;
      if (text === undefined) return cell.firstElementChild.textContent;
      return text === "" || Number.isNaN(Number(text)) ? null : Number(text);
    };
    const compare = (one, other) =>
      typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const sorted = rows
        .map((row) => [key(row), row])
        .sort(([one], [other]) => {
          // What has no number stands last, whichever way.
          if (one === null || other === null) return (one === null) - (other === null);
          return falls ? compare(other, one) : compare(one, other);
        });
      body.append(...sorted.map(([, row]) => row));
    });
  });
}
