// The control room's buttons and keys, and what stands above the plots.
"use strict";

(() => {
  const { state, set, hooks, cells, element, chip, number, base, step, wind, enter, help, told, arrived, mark, reconnect, broken, changed } = window.room;
  const byId = (id) => document.getElementById(id);
  const KNOBS = { logx: ["0", "1"], logy: ["0", "1"], logz: ["0", "1"], stats: ["0", "1"], reference: ["0", "1"], ratio: ["0", "1"] };
  const STATES = { begun: "being taken", ended: "ended", final: "over" };
  const RELOADED = 60000; // ms: so long after a page was loaded anew for another version it is not loaded anew for one
  let version = "";
  let asking = false; // for the runs
  let link = 0;
  let status = null;

  function text(id, words) {
    const found = byId(id);
    if (found.textContent !== words) found.textContent = words;
  }

  function message(level, sentence, remedy) {
    byId("message").className = `message level-${level}`;
    byId("message").hidden = level === "good";
    text("sentence", sentence);
    const parts = (remedy || "").split("`"); // commands stand between them
    if (byId("remedy").textContent !== parts.join("")) byId("remedy").replaceChildren(...parts.map((part, place) => (place % 2 ? element("code", {}, part) : part)));
  }

  function counts(data) {
    const { read, done, failed, pending, closed } = data.counts;
    if (typeof read !== "number") { byId("counts").textContent = "–"; return; }
    byId("counts").replaceChildren(element("b", {}, number(read)), element("span", { class: closed === false ? "wrong" : "soft" }, ` = ${number(done)} done + ${number(failed)} failed + ${number(pending)} pending`));
    byId("counts").dataset.closed = String(closed !== false);
  }

  function workers(data) {
    const all = data.counts.workers || [];
    const states = new Map();
    for (const one of all) states.set(String(one.state || "there"), (states.get(String(one.state || "there")) || 0) + 1);
    text("workers", all.length ? Array.from(states, ([word, count]) => `${count} ${word}`).join(", ") : "–");
    byId("workers").title = all.map((one) => Object.values(one).join(" ")).join("\n");
  }

  hooks.status = (data) => {
    status = data;
    window.page.setClock(data.now);
    if (version && data.version !== version) anew();
    version = data.version;
    text("run", data.run || "none");
    text("run-state", STATES[data.state] || (data.kept ? "over" : ""));
    byId("quality").replaceChildren(chip(data.quality), element("span", { class: "soft" }, ["bad", "warning"].filter((word) => data.qualities[word]).map((word) => ` ${data.qualities[word]} ${word}`).join(",")));
    text("spill", data.spill === null ? "–" : number(data.spill));
    counts(data);
    workers(data);
    const newest = byId("newest");
    if (data.output_time) newest.replaceChildren(element("b", { "data-age": data.output_time, title: data.output_time }));
    else newest.textContent = "–";
    window.page.tick();
    for (const cell of cells.values()) cell.old(data.output_time);
    if (!link) message(data.level, data.sentence, data.remedy);
    byId("worst").hidden = !data.worst.length || Boolean(link);
    const { bad, warning } = data.qualities;
    text("worst", bad > 1 ? "Show the bad plots" : bad ? "Show the bad plot" : warning > 1 ? "Show these plots" : "Show this plot");
    held();
    const which = byId("which");
    if (data.current && !Array.from(which.options).some((option) => option.value === data.current)) runs();
  };
  hooks.list = told;
  hooks.plot = (data) => {
    arrived(data);
    held();
  };
  hooks.link = (since) => {
    link = since;
    if (since) byId("worst").hidden = true;
    if (since) message("bad", "This page has lost its server: what is shown is from before.", "It is tried again by itself; Reconnect tries at once. If it stays away, tell the expert of the online system: `orchestrator online status` shows whether the display runs.");
    else if (status) message(status.level, status.sentence, status.remedy);
  };

  // Another version of the server may speak otherwise, so its own page is loaded: not by all viewers in one moment, and not
  // over and over where two servers of different versions answer in turn.
  function anew() {
    try {
      if (Date.now() - Number(sessionStorage.getItem("anew")) < RELOADED) return;
      sessionStorage.setItem("anew", String(Date.now()));
    } catch {
      return; // a browser that remembers nothing: the page stays as it is
    }
    setTimeout(() => location.reload(), 3000 * Math.random());
  }

  async function runs() {
    if (asking) return;
    asking = true;
    const which = byId("which");
    try {
      const answer = await fetch(`${base}/api/runs`, { headers: { Accept: "application/json" }, cache: "no-store" });
      const names = (await answer.json()).runs.map((row) => row.run);
      if (state.run && !names.includes(state.run)) names.push(state.run);
      which.replaceChildren(element("option", { value: "" }, "current"), ...names.map((name) => element("option", { value: name }, name)));
      which.value = state.run;
    } catch { /* the next status asks again */ } finally {
      asking = false;
    }
  }

  // The newest data now, paused or not: asked for, so that it is what the server has at this moment.
  async function reload() {
    const before = new Map(Array.from(cells, ([name, cell]) => [name, cell.newest]));
    if (!before.size) return;
    const query = new URLSearchParams(Array.from(before.keys(), (name) => ["plots", name]));
    if (state.run) query.append("run", state.run);
    try {
      const answer = await fetch(`${base}/api/plots?${query}`, { headers: { Accept: "application/json" }, cache: "no-store" });
      if (!answer.ok) throw new Error();
      for (const data of await answer.json()) {
        // What the stream has brought since may be of a server that was started anew, whose numbers tell nothing.
        const cell = cells.get(data.header.name);
        if (cell && (cell.newest === before.get(data.header.name) || cell.newest.life === data.life)) arrived(data, true);
      }
      held();
    } catch {
      broken();
    }
  }

  const redraw = () => { for (const cell of cells.values()) cell.redraw(); };

  function held() {
    const paused = state.paused === "1";
    byId("held").hidden = !paused;
    if (!paused) return;
    const newer = Array.from(cells.values()).some((cell) => cell.newest && cell.data && cell.newest.number !== cell.data.number);
    text("held", newer ? "Paused · newer data are there" : "Paused");
  }

  // What the buttons look like follows from the view, never the other way round.
  function look() {
    const paused = state.paused === "1";
    byId("pause").querySelector("span").textContent = paused ? "Play" : "Pause";
    byId("pause").querySelector("use").setAttribute("href", paused ? "#b-play" : "#b-pause");
    byId("pause").setAttribute("aria-pressed", String(paused));
    choose("rotate", state.rotate, " s");
    choose("every", state.reload, " s");
    byId("style").value = state.style;
    byId("plane").value = state.plane;
    byId("which").value = state.run;
    for (const knob of document.querySelectorAll("[data-knob]")) {
      const value = state[knob.dataset.knob];
      knob.setAttribute("aria-pressed", value === "" ? "mixed" : String(value === "1"));
      knob.title = value === "" ? "As each plot says" : value === "1" ? "On" : "Off";
    }
    byId("help-button").setAttribute("aria-pressed", String(state.help === "1"));
    byId("list").setAttribute("aria-pressed", String(state.list === "1"));
    byId("floor").dataset.list = state.list;
    held();
  }

  function choose(id, value, unit) {
    const select = byId(id);
    if (!Array.from(select.options).some((option) => option.value === value)) select.append(element("option", { value }, value + unit));
    select.value = value;
  }

  changed((names) => {
    const any = (...wanted) => wanted.some((name) => names.includes(name));
    if (any("rotate", "paused")) wind();
    if (any("at", "show")) enter();
    if (any("run")) { for (const cell of cells.values()) { cell.fresh = true; } runs(); }
    if (any("run", "reload")) reconnect();
    if (any(...Object.keys(KNOBS), "style", "plane")) redraw();
    if (names.includes("paused") && state.paused !== "1") for (const cell of cells.values()) if (cell.newest !== cell.data) cell.draw();
    if (any("help")) help();
    look();
    mark();
  });

  function full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen().catch(() => {});
  }

  document.addEventListener("fullscreenchange", () => {
    document.body.classList.toggle("full", Boolean(document.fullscreenElement));
    byId("full").querySelector("span").textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
  });

  // A turn by hand begins the period anew: nobody is carried off the moment after.
  const turn = (by) => { step(by); wind(); };
  const ACTS = {
    before: () => turn(-1),
    after: () => turn(1),
    pause: () => set({ paused: state.paused === "1" ? "" : "1" }),
    reload,
    redraw,
    reconnect: () => { reconnect(); reload(); },
    list: () => set({ list: state.list === "1" ? "0" : "1" }),
    "help-button": () => set({ help: state.help === "1" ? "" : "1" }),
    full,
    worst: () => {
      const keys = status.worst.map((name) => `p:${name}`);
      if (keys.length) set({ at: keys[(keys.indexOf(state.at) + 1) % keys.length], help: "1" });
    },
    versus: () => {
      const ways = ["data", "reference", "ratio", "difference"];
      set({ plane: ways[(ways.indexOf(state.plane) + 1) % ways.length] });
    },
  };
  for (const [id, act] of Object.entries(ACTS)) if (byId(id)) byId(id).addEventListener("click", act);
  byId("rotate").addEventListener("change", (event) => set({ rotate: event.target.value }));
  byId("every").addEventListener("change", (event) => set({ reload: event.target.value }));
  byId("style").addEventListener("change", (event) => set({ style: event.target.value }));
  byId("plane").addEventListener("change", (event) => set({ plane: event.target.value }));
  byId("which").addEventListener("change", (event) => set({ run: event.target.value }));
  for (const knob of document.querySelectorAll("[data-knob]")) {
    knob.addEventListener("click", () => {
      const name = knob.dataset.knob;
      const plain = state[name] === "" ? plots_say(name) : state[name] === "1";
      set({ [name]: plain ? "0" : "1" });
    });
  }

  // Whether the plots that are shown say so themselves, as long as nobody has chosen.
  function plots_say(name) {
    return Array.from(cells.values()).some((cell) => {
      const style = ((cell.data || {}).header || {}).style || {};
      return name === "stats" ? Boolean(cell.main.querySelector("g[objtype='TPaveStats']")) : Boolean(style[name]);
    });
  }

  const KEYS = { ArrowLeft: "before", ArrowRight: "after", " ": "pause", r: "reload", d: "redraw", c: "reconnect", l: "list", h: "help-button", f: "full", v: "versus" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.closest("input:not([type=checkbox]), select, textarea, dialog");
    if (event.key === "Escape" && typing) { typing.blur(); return; }
    if (typing) return;
    if (event.key === " " && event.target.closest("button, summary, input")) return;
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); return; }
    if (event.key === "?") { event.preventDefault(); byId("keys-help").showModal(); return; }
    const id = KEYS[event.key];
    if (id) { event.preventDefault(); ACTS[id](); }
  });

  look();
  wind();
  runs();
  reconnect();
})();
