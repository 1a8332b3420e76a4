// Reads the page again when the database changes: server-sent events ring, and the page's own address is what is read.
"use strict";

(() => {
  const body = document.body;
  const base = body.dataset.base || "";
  const watch = body.dataset.watch;
  const lamp = document.getElementById("live");
  const notice = document.getElementById("notice");
  const PAUSE = 700; // ms between two reads
  const SETTLE = 2500; // ms after the last ring: on a large database the views follow a moment later
  const IDLE = 15000; // ms: heartbeats of pollers ring no bell
  const LIVELY = 4000; // ms: the same while steps run, whose progress stands in the heartbeats
  const LATE = 30000; // ms until an answer is given up: one that never comes must not be the last that was asked for
  let stream = null;
  let reading = false;
  let asked = false;
  let last = 0;
  let timer = 0;
  let settle = 0;
  let again = 0; // timer of the stream's next try, where the browser makes none by itself
  let standing = ["off", "connecting"]; // what the stream has said last

  function show(state, words) {
    lamp.dataset.state = state;
    const text = lamp.querySelector(".words");
    if (text.textContent !== words) text.textContent = words;
  }

  function stands(...how) {
    standing = how;
    show(...how);
  }

  function warn(text) {
    notice.hidden = !text;
    notice.textContent = text || "";
  }

  async function read() {
    if (reading) { asked = true; return; }
    reading = true;
    last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(LATE) });
      if (answer.redirected) { location.replace(answer.url); return; } // to the login, whose time was over
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (answer.status === 503) {
        const reason = fresh.getElementById("reason");
        if (watch !== "problem") warn(`${reason ? reason.textContent : "The database does not answer."} What stands here is from before.`);
        show("away", "away");
      } else {
        if (watch === "problem" && answer.ok) { location.reload(); return; }
        warn("");
        show(...standing);
        window.page.setClock(fresh.body.dataset.now);
        window.page.morph(document.getElementById("main"), fresh.getElementById("main"));
        window.page.tick();
        ring();
      }
    } catch {
      show("away", "page away");
      warn("The page itself does not answer: what stands here is from before. It is tried again.");
    } finally {
      reading = false;
      if (asked) { asked = false; soon(); }
    }
  }

  function ring() {
    const light = lamp.querySelector(".lamp");
    light.classList.remove("rung");
    void light.offsetWidth; // starts the animation anew
    light.classList.add("rung");
  }

  function soon() {
    if (document.hidden || timer) return;
    timer = setTimeout(() => { timer = 0; read(); }, Math.max(0, last + PAUSE - Date.now()));
  }

  function changed(message) {
    const { ids, many } = JSON.parse(message.data);
    if (watch === "nothing" || watch === "problem") return;
    if (watch !== "all" && !many && !ids.some((id) => id === watch || id.startsWith(`attempt:${watch}:`))) return;
    soon();
    clearTimeout(settle);
    settle = setTimeout(soon, SETTLE);
  }

  function database(message) {
    const { reachable, since, sentence } = JSON.parse(message.data);
    if (reachable) {
      stands("live", "live");
      warn("");
      if (watch !== "nothing") soon();
    } else {
      stands("away", "database away");
      if (watch !== "problem") warn(`The database does not answer since ${since.slice(0, 19).replace("T", " ")} UTC. ${sentence} What stands here is from before.`);
    }
  }

  function open() {
    if (stream) return;
    stream = new EventSource(`${base}/events`);
    stream.addEventListener("change", changed);
    stream.addEventListener("database", database);
    stream.addEventListener("error", () => {
      stands("off", "reconnecting");
      // The browser tries again by itself unless the server, or a proxy before it, has answered with an error.
      if (stream && stream.readyState === EventSource.CLOSED) again = setTimeout(() => { close(); open(); }, 1000 + 2000 * Math.random());
    });
  }

  function close() {
    clearTimeout(again);
    if (stream) stream.close();
    stream = null;
  }

  // A hidden page holds no connection: browsers allow six to one server, and tabs are many.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); stands("off", "paused"); } else { open(); soon(); }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", () => { if (!document.hidden) open(); });
  if (watch !== "nothing") setInterval(() => { if (Date.now() - last > (document.querySelector("[data-lively]") ? LIVELY : IDLE)) soon(); }, 1000);
  last = Date.now();
  open();
})();
