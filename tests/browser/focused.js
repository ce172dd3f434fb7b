// The name of the element that has the focus, and whether that can be seen.
() => {
  const one = document.activeElement;
  const style = getComputedStyle(one);
  const accent = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  const shapes = [...one.querySelectorAll(".box, .span")]; // a step of the graph has a thick border instead
  const probe = document.createElement("i");
  probe.style.color = accent;
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== "none"
    || shapes.some((shape) => getComputedStyle(shape).stroke === color);
  const name = one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent;
  return [name.trim(), ring];
}
