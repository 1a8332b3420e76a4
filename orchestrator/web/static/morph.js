// Makes one piece of a page equal to another in place: what has not changed is not touched, so focus, selection, scroll
// positions and opened details stay as they are.
"use strict";

window.page = window.page || {};

(() => {
  const keyOf = (node) => (node.nodeType === 1 ? node.id || (node.querySelector && node.matches("[data-row]") && (node.querySelector("a[href]") || {}).href) || null : null);

  const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  function attributes(into, from) {
    for (const { name, value } of Array.from(from.attributes)) {
      if (into.getAttribute(name) !== value) into.setAttribute(name, value);
    }
    for (const { name } of Array.from(into.attributes)) {
      if (!from.hasAttribute(name) && !(name === "open" && into.nodeName === "DETAILS")) into.removeAttribute(name);
    }
  }

  function morph(into, from) {
    if (into.nodeType !== 1) {
      if (into.nodeValue !== from.nodeValue) into.nodeValue = from.nodeValue;
      return;
    }
    if (into.isEqualNode(from)) return;
    const open = into.nodeName === "DETAILS" ? into.open : null;
    attributes(into, from);
    if (open !== null) into.open = open;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(into.nodeName)) return; // what somebody types is theirs
    let here = into.firstChild;
    for (const wanted of Array.from(from.childNodes)) {
      let match = here;
      while (match && !same(match, wanted)) match = keyOf(wanted) === null ? null : match.nextSibling;
      if (match) {
        if (match !== here) into.insertBefore(match, here);
        else here = here.nextSibling;
        morph(match, wanted);
      } else {
        into.insertBefore(document.importNode(wanted, true), here);
      }
    }
    while (here) {
      const next = here.nextSibling;
      into.removeChild(here);
      here = next;
    }
  }

  window.page.morph = morph;
})();
