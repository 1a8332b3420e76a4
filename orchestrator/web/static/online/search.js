// A page that shows what is newest: read again every few seconds and laid over itself, so that nothing jumps.
"use strict";

(() => {
  const PERIOD = Number(document.body.dataset.refresh || 5) * 1000;
  const lamp = document.getElementById("live");
  const words = lamp.querySelector(".words");
  let address = location.href;
  let typed = 0;

  async function read() {
    try {
      const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      window.page.setClock(fresh.body.dataset.now);
      window.page.morph(document.getElementById("main"), fresh.getElementById("main"));
      window.page.tick();
      lamp.dataset.state = "live";
      words.textContent = "live";
    } catch {
      lamp.dataset.state = "away";
      words.textContent = "page away";
    }
  }

  // What is typed is looked for at once, and stands in the address.
  const field = document.getElementById("q");
  if (field) {
    field.addEventListener("input", () => {
      clearTimeout(typed);
      typed = setTimeout(() => {
        const made = new URL(address);
        made.searchParams.set("q", field.value);
        address = made.href;
        history.replaceState(null, "", address);
        read();
      }, 200);
    });
  }
  setInterval(() => { if (!document.hidden) read(); }, PERIOD);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) read(); });
  lamp.dataset.state = "live";
  words.textContent = "live";
})();
