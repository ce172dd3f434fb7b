// Keeps `3 min ago` and running time spans current, and adds the browser's time zone to the exact time on hover.
const UNITS = [[31536000, "y"], [2592000, "mo"], [86400, "d"], [3600, "h"], [60, "min"]];
const EVERY_MS = 1000;
// The server's clock counts: the browser's may be wrong.
const ahead = Date.parse(document.documentElement.dataset.now) - Date.now();

export const now = () => Date.now() + ahead;

function rough(seconds) {
  const whole = Math.round(seconds);
  for (const [unit, name] of UNITS) if (whole >= unit) return `${Math.floor(whole / unit)} ${name}`;
  return `${whole} s`;
}

export function ago(moment) {
  const seconds = (now() - moment) / 1000;
  if (Math.abs(seconds) < 1) return "just now";
  return seconds > 0 ? `${rough(seconds)} ago` : `in ${rough(-seconds)}`;
}

// As `span` of text.py.
export function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  for (const [unit, smaller, name, small] of [[86400, 3600, "d", "h"], [3600, 60, "h", "min"], [60, 1, "min", "s"]])
    if (whole >= unit) return `${Math.floor(whole / unit)} ${name} ${Math.floor((whole % unit) / smaller)} ${small}`;
  return `${whole} s`;
}

const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

export function refresh() {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const moment = Date.parse(element.dateTime);
    set(element, ago(moment));
    if (!element.dataset.zone) {
      element.dataset.zone = "1";
      element.title += ` · ${new Date(moment).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" })}`;
    }
  }
  for (const element of document.querySelectorAll("[data-since]"))
    set(element, span(Math.max(0, now() - Date.parse(element.dataset.since)) / 1000));
}

setInterval(() => document.hidden || refresh(), EVERY_MS);
refresh();
