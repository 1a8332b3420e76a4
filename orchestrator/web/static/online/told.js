// The stream of events: one connection, which comes back by itself, also after one that died without a word.
"use strict";

(() => {
  const { state, base } = window.room;
  const SILENCE = 12000; // ms without a sign of life, which the server gives every 5 s: then the connection is begun anew
  const lamp = document.getElementById("live");
  const hooks = { plot: () => {}, list: () => {}, status: () => {}, link: () => {} };
  let stream = null;
  let wanted = [];
  let heard = 0;
  let lost = 0; // since when, ms
  let again = 0; // timer of the next try, where the browser makes none by itself

  // Of this page, not of the day: a clock that somebody sets right stops nothing.
  const now = () => performance.now();

  function show(how, words) {
    lamp.dataset.state = how;
    const text = lamp.querySelector(".words");
    if (text.textContent !== words) text.textContent = words;
  }

  function alive() {
    heard = now();
    if (lost) {
      lost = 0;
      hooks.link(0);
    }
  }

  function broken() {
    if (!lost) lost = now();
    show("away", "connection lost");
    hooks.link(lost);
  }

  function on(name) {
    stream.addEventListener(name, (message) => {
      alive();
      let data;
      try {
        data = JSON.parse(message.data);
      } catch {
        return; // half an event, at the end of a connection
      }
      if (name === "status") show(data.connected ? "live" : "away", data.connected ? (state.paused === "1" ? "paused" : data.live ? "live" : "connected") : "broadcast away");
      hooks[name](data);
    });
  }

  function open() {
    close();
    if (document.hidden) return;
    const query = new URLSearchParams();
    if (state.run) query.append("run", state.run);
    query.append("period", state.reload);
    for (const name of wanted) query.append("plots", name);
    heard = now();
    stream = new EventSource(`${base}/events?${query}`);
    for (const name of ["status", "list", "plot"]) on(name);
    stream.addEventListener("error", () => {
      broken();
      // The browser tries again by itself unless the server has answered with an error. Not all viewers at once.
      if (stream && stream.readyState === EventSource.CLOSED) again = setTimeout(open, 1000 + 2000 * Math.random());
    });
  }

  function close() {
    clearTimeout(again);
    if (stream) stream.close();
    stream = null;
  }

  // Show these plots from now on.
  function show_plots(names) {
    wanted = names;
    open();
  }

  setInterval(() => {
    if (stream && now() - heard > SILENCE) {
      broken();
      open();
    }
  }, 1000);
  // A hidden page holds no connection: browsers allow six to one server, and tabs are many.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); show("off", "in the background"); } else open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  Object.assign(window.room, { hooks, watch: show_plots, reconnect: open, broken });
})();
