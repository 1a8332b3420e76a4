// Keeps "12 s ago" true, by the server's clock: a viewer's own clock may be wrong.
"use strict";

(() => {
  document.documentElement.classList.add("scripted");
  let offset = 0;

  function setClock(now) {
    const server = Date.parse(now);
    if (!Number.isNaN(server)) offset = server - Date.now();
  }

  function words(seconds) {
    const away = Math.abs(seconds);
    if (away < 1) return "just now";
    const [unit, name] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([u]) => away >= u);
    const span = `${Math.floor(away / unit)} ${name}`;
    return seconds > 0 ? `${span} ago` : `in ${span}`;
  }

  function tick() {
    const now = Date.now() + offset;
    for (const element of document.querySelectorAll("[data-age]")) {
      const time = Date.parse(element.dataset.age);
      if (Number.isNaN(time)) continue;
      const text = words((now - time) / 1000);
      if (element.textContent !== text) element.textContent = text;
    }
  }

  setClock(document.body.dataset.now);
  setInterval(tick, 1000);
  tick();
  Object.assign(window.page, { setClock, tick });
})();
