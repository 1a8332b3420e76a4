// A page that shows what is newest: read again every few seconds and laid over itself, so that nothing jumps.
"use strict";

(() => {
  const PERIOD = Number(document.body.dataset.refresh || 5) * 1000;
  const LATE = 30000; // ms until an answer is given up
  const lamp = document.getElementById("live");
  const words = lamp.querySelector(".words");
  let address = location.href;
  let typed = 0;
  let asked = null; // what is waited for

  // What was asked for before is waited for no more: an answer that comes late does not undo a later one.
  async function read() {
    if (asked) asked.abort();
    const mine = asked = new AbortController();
    const late = setTimeout(() => mine.abort(), LATE);
    try {
      const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store", signal: mine.signal });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (asked !== mine) return;
      window.page.setClock(fresh.body.dataset.now);
      window.page.morph(document.getElementById("main"), fresh.getElementById("main"));
      window.page.tick();
      lamp.dataset.state = "live";
      words.textContent = "live";
    } catch {
      if (asked !== mine) return;
      lamp.dataset.state = "away";
      words.textContent = "page away";
    } finally {
      clearTimeout(late);
      if (asked === mine) asked = null;
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
  setInterval(() => { if (!document.hidden && !asked) read(); }, PERIOD);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) read(); });
  lamp.dataset.state = "live";
  words.textContent = "live";
})();
