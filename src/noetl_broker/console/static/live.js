// Follows changes: `<main data-changes="all">` or an id. When something changes, it asks for the page's own address and
// brings each `[data-live]` up to date; what a person typed, chose or opened stays. A hidden page follows nothing, because
// a browser has few connections to one server.
import * as choose from "./choose.js";
import * as copy from "./copy.js";
import * as times from "./times.js";

const LEAST_MS = [1000, 300]; // between two requests: of a page about all executions, about one
const SHARE = 10; // a request that takes long is followed by a pause so many times as long
const MOST_MS = 10000; // of that pause
const SLACK_MS = 250; // the way of an answer, at most
const AGAIN_MS = [1000, 15000]; // between attempts to follow, while the server does not answer
const main = document.querySelector("main[data-changes]");
const lamp = document.getElementById("live");
let stream = null;
let timer = 0;
let again = AGAIN_MS[0];
let next = 0; // when the next request may begin
let running = false;
let wanted = false;
let changed = 0; // when the last change was told

function say(state, text) {
  if (!lamp) return;
  lamp.hidden = false;
  lamp.className = `live ${state}`;
  lamp.textContent = text;
  lamp.title = text === "Live" ? "This page shows changes as they happen" : "It goes on by itself when the server answers";
}

function follow() {
  clearTimeout(timer);
  if (stream || document.hidden) return;
  const of = main.dataset.changes;
  const query = of === "all" ? "" : `?${of.split(",").map((id) => `execution_id=${id}`).join("&")}`;
  stream = new EventSource(`/api/v1/changes${query}`);
  stream.addEventListener("open", () => {
    again = AGAIN_MS[0];
    say("on", "Live");
    hear(); // what changed before
  });
  stream.addEventListener("changes", (event) => JSON.parse(event.data).changes.length && hear());
  let counts = null;
  stream.addEventListener("attention", (event) => {
    if (counts !== null && counts !== event.data) hear(); // the counts of the navigation
    counts = event.data;
  });
  stream.addEventListener("database", (event) => {
    const { away } = JSON.parse(event.data);
    say(away ? "away" : "on", away ? "Database away" : "Live");
    if (!away) hear();
  });
  stream.addEventListener("error", () => {
    say("away", "No connection");
    stream?.close();
    stream = null;
    timer = setTimeout(follow, again);
    again = Math.min(again * 2, AGAIN_MS[1]);
  });
}

function hear() {
  changed = Date.now();
  ask();
}

function ask() {
  if (running) return void (wanted = true);
  wanted = false;
  running = true;
  setTimeout(bring, Math.max(0, next - Date.now()));
}

async function bring() {
  const began = Date.now();
  const address = location.href; // the slider may move meanwhile
  let read = 0; // when the server began to read what the answer shows
  let pause = LEAST_MS[main.dataset.changes === "all" ? 0 : 1];
  try {
    const answer = await fetch(address, { headers: { "X-Live": "1" }, cache: "no-store" });
    if (answer.redirected) return void location.reload(); // the session has ended
    pause = Math.max(pause, 1000 * (Number(answer.headers.get("Retry-After")) || 0));
    const text = answer.ok ? await answer.text() : "";
    if (text) read = Date.now() - (Number(answer.headers.get("X-Age-Ms")) || 0); // many pages share an answer
    else if (answer.status !== 204) read = Infinity; // 204: too many pages wait; later
    if (text && address === location.href) update(personal(new DOMParser().parseFromString(text, "text/html")));
  } catch {
    read = Infinity; // the stream says that the server is away, and later that it is back
  } finally {
    next = Date.now() + Math.max(pause, Math.min(MOST_MS, (Date.now() - began) * SHARE));
    running = false;
    if (read < changed + SLACK_MS) wanted = true; // the answer may be from before the change
    if (wanted && !document.hidden) ask();
  }
}

// A shared answer has no name of its reader, and no token for forms.
function personal(page) {
  const own = document.querySelector("[data-who]")?.textContent;
  for (const one of page.querySelectorAll("[data-who]")) one.textContent = own;
  for (const one of page.querySelectorAll("input[name=csrf]")) one.setAttribute("value", main.dataset.csrf);
  return page;
}

export function update(page) {
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const fresh = page.getElementById(old.id);
    if (fresh) isBusy(old) ? rows(old, fresh) : morph(old, fresh);
  }
  copy.enable();
  choose.refresh();
  times.refresh();
  document.dispatchEvent(new CustomEvent("updated"));
}

// Rows must not move under the pointer of who chooses among them.
const isBusy = (old) =>
  old.querySelector("tbody tr[id]") && (old.matches(":hover") || old.querySelector("tbody :checked") || old.contains(document.activeElement));

function rows(old, fresh) {
  for (const row of old.querySelectorAll("tr[id]")) {
    const other = fresh.querySelector(`#${CSS.escape(row.id)}`);
    if (other) morph(row, other);
  }
}

export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.id !== fresh.id)
    return void old.replaceWith(document.adoptNode(fresh));
  if (old.nodeType !== Node.ELEMENT_NODE) return void (old.nodeValue = fresh.nodeValue);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !isOwn(old, name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value && !isOwn(old, name)) old.setAttribute(name, value);
  const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let place = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const same = child.id && named.get(child.id);
    if (same) {
      if (same === place) place = place.nextSibling;
      else old.insertBefore(same, place);
      morph(same, child);
    } else if (place && !(place.id && place.id !== child.id) && place.nodeName === child.nodeName) {
      const after = place.nextSibling;
      morph(place, child);
      place = after;
    } else old.insertBefore(document.adoptNode(child), place);
  }
  while (place) {
    const after = place.nextSibling;
    place.remove();
    place = after;
  }
}

// What belongs to the person, not to the page.
const isOwn = (element, name) => (name === "open" && element.nodeName === "DETAILS") || (name === "checked" || name === "value") && element.nodeName === "INPUT";

if (main) {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return follow();
    stream?.close();
    stream = null;
  });
  addEventListener("pagehide", () => stream?.close());
  follow();
}
