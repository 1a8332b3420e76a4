// The keyboard: / j k n p ? and "g" followed by a page's letter. Keys in a field are the field's.
"use strict";

(() => {
  const help = document.getElementById("help");
  const search = document.getElementById("search");
  let went = 0;

  const rows = () => Array.from(document.querySelectorAll("[data-row]")).map((row) => row.querySelector("a[href]")).filter(Boolean);

  function step(by) {
    const links = rows();
    if (!links.length) return;
    const active = document.activeElement && document.activeElement.closest("[data-row]");
    const at = active ? links.findIndex((link) => active.contains(link)) : -1;
    const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + by));
    links[next].focus({ preventScroll: true });
    links[next].closest("[data-row]").scrollIntoView({ block: "nearest" });
  }

  function follow(selector) {
    const link = document.querySelector(selector);
    if (link) link.click();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.closest("input, select, textarea, [contenteditable]");
    if (event.key === "Escape" && typing) { typing.blur(); return; }
    if (typing || help.open) return;
    if (went && Date.now() - went < 1500) {
      went = 0;
      if (/^[a-z]$/.test(event.key)) { event.preventDefault(); follow(`[data-go="${event.key}"]`); }
      return;
    }
    went = 0;
    const act = {
      "/": () => { search.focus(); search.select(); },
      j: () => step(1),
      k: () => step(-1),
      n: () => follow("#next"),
      p: () => follow("#previous"),
      g: () => { went = Date.now(); },
      "?": () => help.showModal(),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  document.getElementById("keys").addEventListener("click", () => help.showModal());
})();
