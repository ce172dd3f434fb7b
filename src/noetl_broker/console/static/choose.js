// Says how many rows are chosen, and chooses all of a page.
const rows = () => [...document.querySelectorAll(".many input[type=checkbox][name=id]")];

export function refresh() {
  const all = document.querySelector("[data-choose-all]");
  const text = document.querySelector("[data-chosen]");
  if (!text) return;
  const boxes = rows();
  const count = boxes.filter((box) => box.checked).length;
  const whole = document.querySelector(".many [name=scope]")?.checked ?? false;
  text.dataset.none ??= text.textContent;
  text.textContent = whole ? "All that match:" : count ? `${count} chosen:` : text.dataset.none;
  for (const button of document.querySelectorAll("[data-chosen-bar] button")) button.disabled = !count && !whole;
  if (all) {
    all.hidden = false;
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
  }
}

let last = null; // with the shift key, the rows between two clicks are chosen
document.addEventListener("click", (event) => {
  const box = event.target;
  if (!box.matches?.(".many input[type=checkbox][name=id]")) return;
  const boxes = rows();
  if (event.shiftKey && last && boxes.includes(last)) {
    const [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((one, other) => one - other);
    for (const between of boxes.slice(from, to + 1)) between.checked = box.checked;
  }
  last = box;
  refresh();
});
document.addEventListener("change", (event) => {
  if (event.target.matches?.("[data-choose-all]")) for (const box of rows()) box.checked = event.target.checked;
  if (event.target.closest?.(".many")) refresh();
});
refresh();
