// What a viewer shows, all of it in the page's address: a link shows the same, and a reload forgets nothing.
"use strict";

window.room = window.room || {};

(() => {
  // Every part of a view with what it is when the address does not say.
  const DEFAULTS = { run: "", at: "", rotate: "0", reload: "0.2", paused: "", logx: "", logy: "", logz: "", stats: "", style: "", plane: "", reference: "1", ratio: "1", help: "", list: "1" };
  const state = { ...DEFAULTS, show: [] };
  const listeners = [];

  function read(query) {
    const given = new URLSearchParams(query);
    for (const [name, usual] of Object.entries(DEFAULTS)) state[name] = given.has(name) ? given.get(name) : usual;
    state.show = given.getAll("show");
    if (!(Number(state.reload) >= 0.1 && Number(state.reload) <= 3600)) state.reload = DEFAULTS.reload;
    if (!(Number(state.rotate) >= 0 && Number(state.rotate) <= 86400)) state.rotate = DEFAULTS.rotate;
  }

  function query() {
    const made = new URLSearchParams();
    if (state.run) made.append("run", state.run);
    for (const key of state.show) made.append("show", key);
    for (const [name, usual] of Object.entries(DEFAULTS)) {
      if (name !== "run" && state[name] !== usual) made.append(name, state[name]);
    }
    const text = made.toString();
    return text ? `?${text}` : "";
  }

  function write() {
    const wanted = location.pathname + query();
    if (wanted !== location.pathname + location.search) history.replaceState(null, "", wanted);
  }

  // Change parts of the view; whoever listens is told which.
  function set(changes) {
    const changed = Object.keys(changes).filter((name) => String(state[name]) !== String(changes[name]));
    if (!changed.length) return;
    Object.assign(state, changes);
    write();
    for (const listener of listeners) listener(changed);
  }

  // The whole view at once, from a link or a saved set.
  function take(text) {
    read(text);
    write();
    for (const listener of listeners) listener(["run", "show", ...Object.keys(DEFAULTS)]);
  }

  read(location.search);
  addEventListener("popstate", () => take(location.search));
  Object.assign(window.room, { state, set, take, query, changed: (listener) => listeners.push(listener) });
})();
