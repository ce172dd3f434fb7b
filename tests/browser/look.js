// What a page would have if it had forgotten to escape a text.
([element, invisible]) => ({
  elements: document.querySelectorAll(`${element}, [${element}], img, [onerror], [style]`).length,
  links: [...document.querySelectorAll("[href], [action], [src]")].filter((one) =>
    new URL(one.getAttribute("href") ?? one.getAttribute("action") ?? one.getAttribute("src"), location.href).origin
    !== location.origin).length,
  ...((text) => ({
    invisible: [...invisible].filter((one) => text.includes(one)).length,
    shown: text.includes(`<${element}>`),
  }))(document.body.innerText),
})
