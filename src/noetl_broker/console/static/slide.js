// The time slider: moving it shows another turn without a page load. The address follows, so it can be sent.
import { update } from "./live.js";

const WAIT_MS = 60; // while the slider moves
const LONG = 200; // turns
let request = null;
let timer = 0;

const slider = () => document.querySelector("input[data-turn]");

function address(turn) {
  const url = new URL(location.href);
  turn === null ? url.searchParams.delete("turn") : url.searchParams.set("turn", turn);
  return url;
}

async function show(url, push) {
  request?.abort();
  request = new AbortController();
  const own = request;
  document.getElementById("turns")?.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(url, { signal: own.signal, cache: "no-store" });
    if (own !== request) return;
    if (answer.redirected || !answer.ok) return void location.assign(url);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    history[push ? "pushState" : "replaceState"](null, "", url);
    update(page);
    settle();
  } catch (fault) {
    if (fault.name !== "AbortError") location.assign(url);
  } finally {
    if (own === request) document.getElementById("turns")?.removeAttribute("aria-busy");
  }
}

// The handle follows the address; without a turn it stands at the last one.
function settle() {
  const input = slider();
  if (!input || input.matches(":active")) return;
  input.value = new URL(location.href).searchParams.get("turn") ?? input.max;
}

// The first answer replays the whole history: it is asked for as soon as a person comes near the slider.
let warmed = false;
function warm(event) {
  if (warmed || !event.target.matches?.("input[data-turn]") || event.target.max < LONG) return;
  warmed = true;
  fetch(address(event.target.max), { cache: "no-store" }).catch(() => (warmed = false));
}
document.addEventListener("pointerover", warm);
document.addEventListener("focusin", warm);

// The step that is chosen, or that the turn was about, comes into view inside the graph's own box; else one that runs, or
// the first one.
let seen = null;
function reveal() {
  const box = document.querySelector(".picture > .scroll");
  const step = ["chosen", "step.running", "step.waits", "step"].map((name) => box?.querySelector(`.${name}`)).find(Boolean);
  if (!box || !step || seen === location.search) return;
  seen = location.search;
  const [inner, outer] = [step.getBoundingClientRect(), box.getBoundingClientRect()];
  if (inner.top < outer.top || inner.bottom > outer.bottom) box.scrollTop += inner.top - outer.top - outer.height / 3;
  if (inner.left < outer.left || inner.right > outer.right) box.scrollLeft += inner.left - outer.left - (outer.width - inner.width) / 2;
}

document.addEventListener("input", (event) => {
  if (!event.target.matches?.("input[data-turn]")) return;
  const output = event.target.form.querySelector("output");
  if (output) output.textContent = `turn ${event.target.value} of ${event.target.max}`;
  clearTimeout(timer);
  const turn = event.target.value; // a live update may move the handle before the answer is there
  timer = setTimeout(() => show(address(turn), false), WAIT_MS);
});
document.addEventListener("click", (event) => {
  const jump = event.target.closest?.("a[data-jump]");
  if (!jump || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const name = jump.dataset.jump;
  show(new URL(jump.href), true).then(() => document.querySelector(`a[data-jump="${name}"]`)?.focus());
});
addEventListener("popstate", () => slider() && show(new URL(location.href), false));
document.addEventListener("updated", settle);
document.addEventListener("updated", reveal);
reveal();
if (slider()) document.documentElement.classList.add("slides");
