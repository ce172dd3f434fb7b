// Ctrl-K opens a line that goes to a page, an execution by its id, or a playbook by a part of its path. `/` goes to the
// search of the page; on a page without one, it opens that line.
const WAIT_MS = 150; // while a person types
const MOST = 6; // playbooks
let dialog = null;
let input = null;
let list = null;
let timer = 0;

const options = () => [...list.children];
const chosen = () => list.querySelector("[aria-selected=true]");

function choose(option) {
  for (const other of options()) other.setAttribute("aria-selected", other === option);
  input.setAttribute("aria-activedescendant", option?.id ?? "");
  option?.scrollIntoView({ block: "nearest" });
}

function show(found) {
  list.replaceChildren(...found.map(([text, href], index) => {
    const option = document.createElement("li");
    Object.assign(option, { id: `go-${index}`, role: "option", textContent: text });
    option.dataset.href = href;
    return option;
  }));
  choose(list.firstElementChild);
}

function near(text) {
  const links = [...document.querySelectorAll("#navigation a[href]")];
  const pages = links.map((link) => [link.querySelector("[data-title]").textContent, link.getAttribute("href")]);
  const found = pages.filter(([title]) => title.toLowerCase().includes(text.toLowerCase()));
  if (/^\d{1,19}$/.test(text)) found.unshift([`Execution ${text}`, `/executions/${text}`]);
  return text ? [...found, [`Search executions for ${text}`, `/executions?text=${encodeURIComponent(text)}`]] : found;
}

async function far(text) {
  const answer = await fetch(`/playbooks?search=${encodeURIComponent(text)}`).catch(() => null);
  const page = new DOMParser().parseFromString(answer?.ok ? await answer.text() : "", "text/html");
  const links = [...page.querySelectorAll("td a.path")].slice(0, MOST);
  const playbooks = links.map((link) => [`Playbook ${link.textContent}`, link.getAttribute("href")]);
  if (text === input.value.trim()) show([...near(text).slice(0, -1), ...playbooks, ...near(text).slice(-1)]);
}

function build() {
  dialog = document.createElement("dialog");
  dialog.className = "palette";
  dialog.setAttribute("aria-label", "Go to");
  dialog.innerHTML =
    '<input type="text" role="combobox" aria-expanded="true" aria-controls="go-list" aria-label="Go to a page, an execution or a playbook"' +
    ' placeholder="A page, the id of an execution, a playbook" autocomplete="off" spellcheck="false"><ul id="go-list" role="listbox" aria-label="Places"></ul>';
  [input, list] = dialog.children;
  input.addEventListener("input", () => {
    const text = input.value.trim();
    show(near(text));
    clearTimeout(timer);
    if (text) timer = setTimeout(far, WAIT_MS, text);
  });
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const all = options();
    if (step) choose(all[(all.indexOf(chosen()) + step + all.length) % all.length]);
    else if (event.key === "Enter" && chosen()) location.assign(chosen().dataset.href);
    if (step || event.key === "Enter") event.preventDefault();
  });
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close();
    else if (target.dataset.href) location.assign(target.dataset.href);
  });
  document.body.append(dialog);
}

function open() {
  if (!dialog) build();
  if (dialog.open) return;
  input.value = "";
  show(near(""));
  dialog.showModal();
}

if (document.getElementById("navigation")) {
  document.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    if (event.key === "k" && command && !event.shiftKey && !event.altKey) event.preventDefault(), open();
    if (event.key !== "/" || command || event.target.closest?.("input, textarea, select, dialog")) return;
    const search = document.querySelector("[data-search]");
    event.preventDefault();
    search ? search.focus() : open();
  });
  for (const button of document.querySelectorAll("button[data-palette]")) {
    button.hidden = false;
    button.addEventListener("click", open);
  }
}
