// Buttons that copy: `<button data-copy="…" hidden>`. They are shown where the browser can copy.
const SHOWN_MS = 1500;

export function enable(root = document) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button[data-copy][hidden]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("button[data-copy]");
  if (!button) return;
  event.preventDefault();
  await navigator.clipboard.writeText(button.dataset.copy);
  button.classList.add("done");
  button.querySelector("path").setAttribute("d", "M3 8.5l3.3 3.3l6.7-7");
  setTimeout(() => {
    button.classList.remove("done");
    button.querySelector("path").setAttribute("d", "M5.5 5.5h7.5v8h-7.5zM3 10.5v-8h7");
  }, SHOWN_MS);
});
enable();
