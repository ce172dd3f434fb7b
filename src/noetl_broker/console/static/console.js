// What pages do with script: copy ids, keep times current, choose many, follow changes. Every page works without it.
import "./copy.js";
import "./times.js";
import "./choose.js";
import "./live.js";
import "./slide.js";

// The address of a filter has only what is filled in.
const isEmpty = (field) => field.name && !field.value && !field.disabled;
document.addEventListener("submit", ({ target: form, defaultPrevented }) => {
  if (form.method !== "get" || defaultPrevented) return;
  const empty = [...form.elements].filter(isEmpty);
  for (const field of empty) field.disabled = true;
  setTimeout(() => empty.forEach((field) => (field.disabled = false)));
});
