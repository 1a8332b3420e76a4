// Which canvas is on the stage: the list of canvases and plots, turning from one to the next, and the grid of plots.
"use strict";

(() => {
  const { state, set, Plot, element, chip, spot, watch } = window.room;
  const MOST = 64; // plots of one canvas, as many as the server gives to one viewer
  const grid = document.getElementById("grid");
  const box = document.getElementById("canvases");
  const filter = document.getElementById("filter");
  const helps = document.getElementById("helps");
  let canvases = []; // as told
  let plots = []; // as told: name, title, quality
  let shown = null; // the canvas on the stage
  const cells = new Map(); // name to Plot
  let timer = 0;
  let drawnList = "";
  let run = null; // whose plots these are

  const byName = (name) => plots.find((plot) => plot.name === name);

  // A canvas by its key: one of the configured ones, or a single plot.
  function canvas(key) {
    const found = canvases.find((one) => one.key === key);
    if (found || !key.startsWith("p:")) return found || null;
    const plot = byName(key.slice(2));
    return plot ? { key, name: plot.title, plots: [plot.name], quality: plot.quality, help: "", group: "" } : null;
  }

  // The keys that are turned through: those that were chosen, or else the shifters' canvases, or else all.
  function turning() {
    const chosen = state.show.filter((key) => canvas(key));
    if (chosen.length) return chosen;
    const shifters = canvases.filter((one) => one.group === "shifter");
    return (shifters.length ? shifters : canvases).map((one) => one.key);
  }

  function step(by) {
    const keys = turning();
    if (!keys.length) return;
    const at = keys.indexOf(state.at || (shown ? shown.key : ""));
    const next = at < 0 ? (by > 0 ? 0 : keys.length - 1) : (at + by + keys.length) % keys.length;
    set({ at: keys[next] });
  }

  function wind() {
    clearInterval(timer);
    const period = Number(state.rotate);
    timer = period > 0 && state.paused !== "1" ? setInterval(() => { if (!document.hidden) step(1); }, period * 1000) : 0;
  }

  // Put the wanted canvas on the stage, and tell the server which plots that takes.
  function enter() {
    const keys = turning();
    const wanted = (state.at && canvas(state.at)) || (keys.length ? canvas(keys[0]) : null);
    const names = wanted ? wanted.plots.slice(0, MOST) : [];
    const before = shown;
    shown = wanted;
    document.getElementById("canvas").textContent = wanted ? wanted.name : state.at ? state.at.slice(2) : "No canvas yet";
    document.getElementById("canvas-quality").replaceChildren(...(wanted ? [chip(wanted.quality)] : []));
    const at = wanted ? keys.indexOf(wanted.key) : -1;
    document.getElementById("place").textContent = at >= 0 && keys.length > 1 ? `${at + 1} of ${keys.length}` : "";
    const canvasStays = before && wanted && before.key === wanted.key;
    const same = canvasStays && names.length === cells.size && names.every((name) => cells.has(name));
    if (!same && (names.length || cells.size)) {
      // Plots that come to a canvas, or leave it, change nothing in the others.
      const stay = new Map(canvasStays ? cells : []);
      for (const [name, cell] of cells) if (!canvasStays || !names.includes(name)) cell.close();
      cells.clear();
      for (const name of names) {
        let cell = stay.get(name);
        if (!cell) {
          cell = new Plot(name);
          cell.title.addEventListener("click", () => set({ at: state.at === `p:${name}` ? (before ? before.key : "") : `p:${name}` }));
        }
        cells.set(name, cell);
        grid.append(cell.figure);
      }
      grid.dataset.count = String(names.length);
      grid.toggleAttribute("data-many", names.length > 9);
      grid.style.setProperty("--columns", String(columns(names.length)));
      watch(names);
      for (const cell of stay.values()) cell.resized();
    }
    help();
    mark();
  }

  const columns = (count) => (count <= 1 ? 1 : count <= 4 ? 2 : count <= 9 ? 3 : 4);

  function help() {
    helps.hidden = state.help !== "1";
    if (helps.hidden) return;
    const inner = [];
    if (shown && shown.help) inner.push(element("p", { class: "text" }, shown.help));
    for (const cell of cells.values()) {
      const header = (cell.newest || {}).header;
      if (!header) continue;
      const words = [element("h3", {}, header.title)];
      if (header.description) words.push(element("p", { class: "text soft" }, header.description));
      words.push(element("p", { class: "text" }, header.help || "Nobody has written yet what one should see here."));
      const said = header.verdict && header.verdict.sentence;
      if (cell.newest.reference && /^T(H2|Profile2D)/.test((cell.newest.object || {})._typename)) words.push(element("p", { class: "text soft" }, `Its reference (${header.reference || "an earlier run"}) stands beside it when it is shown alone: press on its name. The key v goes through this run, the reference, their ratio and their difference.`));
      if (typeof said === "string" && said) words.push(element("p", { class: "text" }, chip(header.quality), ` ${said}`));
      inner.push(element("article", {}, ...words));
    }
    helps.replaceChildren(...(inner.length ? inner : [element("p", { class: "soft" }, "No plot is shown, so there is no help.")]));
  }

  // The list: a line for each canvas with a tick for turning, and its plots below.
  function list() {
    const seen = JSON.stringify([canvases, plots.map((plot) => [plot.name, plot.title, plot.quality]), filter.value]);
    if (seen === drawnList) return;
    drawnList = seen;
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (...texts) => words.every((word) => texts.join(" ").toLowerCase().includes(word));
    const open = new Set(Array.from(box.querySelectorAll("details[open]"), (one) => one.dataset.key));
    const rows = [];
    for (const one of canvases) {
      const members = one.plots.map(byName).filter(Boolean);
      const inside = members.filter((plot) => fits(plot.title, plot.name, plot.keywords));
      if (words.length && !inside.length && !fits(one.name)) continue;
      const tick = element("input", { type: "checkbox", "data-key": one.key, "aria-label": `Show ${one.name} in turn` });
      const name = element("button", { type: "button", class: "plain name", "data-key": one.key }, one.name);
      const row = element("div", { class: "canvas-row" }, tick, spot(one.quality), name);
      const inner = element("ul", { class: "plain-list" }, ...(words.length && inside.length ? inside : members).map((plot) => element("li", {}, spot(plot.quality), element("button", { type: "button", class: "plain name", "data-key": `p:${plot.name}`, title: plot.name }, plot.title))));
      const details = element("details", { "data-key": one.key }, element("summary", {}, `${members.length} ${members.length === 1 ? "plot" : "plots"}${one.group === "expert" ? ", for experts" : ""}`), inner);
      details.open = open.has(one.key) || words.length > 0;
      rows.push(element("div", { class: "canvas-entry" }, row, details));
    }
    const focused = box.contains(document.activeElement) ? document.activeElement : null;
    box.replaceChildren(...(rows.length ? rows : [element("p", { class: "empty" }, words.length ? "Nothing in the list fits." : "No plots yet.")]));
    mark();
    if (focused) { // whoever goes through the list by the keyboard stays where they were
      const key = (focused.closest("[data-key]") || focused).dataset.key;
      const there = Array.from(box.querySelectorAll("[data-key]")).find((one) => one.dataset.key === key && one.nodeName === (focused.nodeName === "SUMMARY" ? "DETAILS" : focused.nodeName));
      if (there) (there.querySelector("summary") || there).focus({ preventScroll: true });
    }
  }

  function mark() {
    const keys = new Set(turning());
    for (const tick of box.querySelectorAll("input[data-key]")) tick.checked = keys.has(tick.dataset.key);
    for (const name of box.querySelectorAll("button[data-key]")) {
      if (shown && name.dataset.key === shown.key) name.setAttribute("aria-current", "true");
      else name.removeAttribute("aria-current");
    }
  }

  box.addEventListener("click", (event) => {
    const name = event.target.closest("button[data-key]");
    if (name) set({ at: name.dataset.key });
  });
  box.addEventListener("change", (event) => {
    const key = event.target.dataset.key;
    if (!key) return;
    const keys = turning().filter((one) => one !== key);
    if (event.target.checked) keys.push(key);
    const order = canvases.map((one) => one.key);
    keys.sort((a, b) => order.indexOf(a) - order.indexOf(b));
    if (keys.length) set({ show: keys });
    else mark(); // the last one stays
  });
  filter.addEventListener("input", list);

  // What the server says of plots and canvases.
  function told(data) {
    if (run !== null && data.run !== run) {
      shown = null; // nothing of one run stands under the name of another
      for (const cell of cells.values()) cell.close();
      cells.clear();
    }
    run = data.run;
    canvases = data.canvases;
    plots = data.plots;
    list();
    enter();
  }

  // A plot has come; ``now``: it was asked for, and is drawn even while the picture is held.
  function arrived(data, now = false) {
    const cell = cells.get(data.header.name);
    if (!cell || data.header.run !== run) return; // of a run that was shown before, or of one that is not told of yet
    cell.offer(data, state.paused === "1" && !now);
    if (state.help === "1") help();
  }

  let resizing = 0;
  new ResizeObserver(() => {
    clearTimeout(resizing);
    resizing = setTimeout(() => { for (const cell of cells.values()) cell.resized(); }, 120);
  }).observe(grid);

  Object.assign(window.room, { cells, step, wind, enter, help, told, arrived, mark, list });
})();
