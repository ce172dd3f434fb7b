// What pages do with script: copy ids, keep times current, choose many, follow changes, go to pages. Every page works without it.
import "./copy.js";
import "./times.js";
import "./choose.js";
import "./live.js";
import "./palette.js";
import "./slide.js";

// The address of a filter has only what is filled in.
const isEmpty = (field) => field.name && !field.value && !field.disabled;
document.addEventListener("submit", ({ target: form, defaultPrevented }) => {
  if (form.method !== "get" || defaultPrevented) return;
  const empty = [...form.elements].filter(isEmpty);
  for (const field of empty) field.disabled = true;
  setTimeout(() => empty.forEach((field) => (field.disabled = false)));
});

// The button of a form that was sent says so, and takes no second click. A download leaves the page as it is.
const busy = new Map();
document.addEventListener("submit", ({ target: form, submitter, defaultPrevented }) => {
  if (!submitter || defaultPrevented || submitter.value === "download" || form.matches(".filters, [method=dialog]")) return;
  setTimeout(() => { // the value of a disabled button is not sent
    if (!busy.has(submitter)) busy.set(submitter, [...submitter.childNodes]);
    submitter.disabled = true;
    submitter.setAttribute("aria-busy", "true");
    submitter.replaceChildren("Working…");
  });
});
addEventListener("pageshow", () => { // a person who goes back finds the buttons as they were
  for (const [button, nodes] of busy) {
    button.disabled = false;
    button.removeAttribute("aria-busy");
    button.replaceChildren(...nodes);
  }
  busy.clear();
});
