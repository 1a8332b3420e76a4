// One plot on the screen: drawn by JSROOT, or as a picture where that is not there. New data keep the axes as somebody
// has set them; "redraw" sets them back.
"use strict";

(() => {
  const { state } = window.room;
  const base = document.body.dataset.base || "";
  const J = window.JSROOT;
  const WORDS = { good: "good", warning: "warning", bad: "bad", none: "no reference" };
  // ROOT's colours by number: a blue line and filling (the style sheet makes it paler), an orange for the reference.
  const LINE = 862;
  const FILL = 862;
  const OTHER = 802;
  const WIDE = 760; // pixels; a field of at least that has room for a plot of two axes and its reference beside it
  const OLD = 60000; // ms behind the newest plot of the run
  const PULLS = 5; // a difference is drawn from -5 to 5 standard deviations
  const COLD_WARM = "pal87"; // ROOT's palette kLightTemperature: blue for too little, red for too much
  const ROOMY = 440; // pixels; in a narrower field the statistics box would hide what it speaks of
  const PIXELS = 43; // ROOT's font whose size is in pixels

  if (J) {
    Object.assign(J.settings, { ZoomWheel: false, CanEnlarge: false, DragAndDrop: false, HandleKeys: false, ProgressBox: false, MoveResize: false, ToolBar: "popup", Latex: J.constants.Latex.Symbols });
    Object.assign(J.gStyle, { fOptTitle: 0, fPadTickX: 1, fPadTickY: 1, fOptStat: 1110, fStatBorderSize: 0 });
    J.settings.SmallPad = { width: 40, height: 30 };
  }

  const element = (name, attributes = {}, ...inner) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "class") made.className = value;
      else if (value !== null && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...inner.filter((one) => one !== null && one !== undefined));
    return made;
  };

  function icon(name, kind = "icon") {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", kind);
    svg.setAttribute("aria-hidden", "true");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    use.setAttribute("href", `#${name}`);
    svg.append(use);
    return svg;
  }

  const known = (quality) => (quality in WORDS ? quality : "none");
  const chip = (quality) => element("span", { class: `chip q-${known(quality)}` }, icon(`q-${known(quality)}`), element("span", {}, WORDS[known(quality)]));
  const spot = (quality) => element("span", { class: `spot q-${known(quality)}`, title: WORDS[known(quality)] }, icon(`q-${known(quality)}`));
  const number = (value) => (typeof value === "number" ? value.toLocaleString("en-GB").replaceAll(",", " ") : "–");

  const plane = (histogram) => /^T(H2|Profile2D)/.test(histogram._typename);

  // The bins within the axes of a drawn histogram: JSROOT has opened its short form of arrays by then.
  function inner(histogram) {
    const all = Array.from(histogram.fArray);
    if (!plane(histogram)) return all.slice(1, -1);
    const across = histogram.fXaxis.fNbins + 2;
    return all.filter((_, bin) => bin >= across && bin < all.length - across && bin % across > 0 && bin % across < across - 1);
  }

  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const highest = (values) => values.reduce((most, value) => Math.max(most, value), -Infinity);
  const lowest = (values) => values.reduce((least, value) => Math.min(least, value), Infinity);
  const alike = (a, b) => a && b && a._typename.slice(0, 3) === b._typename.slice(0, 3) && a.fXaxis.fNbins === b.fXaxis.fNbins && (!plane(a) || a.fYaxis.fNbins === b.fYaxis.fNbins);
  const errors = (histogram) => (histogram.fSumw2 && histogram.fSumw2.length ? histogram.fSumw2 : histogram.fArray);

  // Names of bins that begin alike say so once, in the axis' title, and have room for what tells them apart.
  function shorten(axis) {
    const items = axis.fLabels && axis.fLabels.arr ? axis.fLabels.arr : [];
    const words = items.map((item) => String(item.fString).split(" "));
    if (words.length < 2) return;
    let same = 0;
    while (words.every((one) => one.length > same + 1 && one[same] === words[0][same])) same += 1;
    if (!same) return;
    for (const [place, item] of items.entries()) item.fString = words[place].slice(same).join(" ");
    axis.fTitle = [axis.fTitle, `(${words[0].slice(0, same).join(" ")} …)`].filter(Boolean).join(" ");
  }

  // How many letters the longest number at the upright axis has, about.
  function letters(drawn) {
    const ends = plane(drawn) ? [drawn.fYaxis.fXmin, drawn.fYaxis.fXmax] : [highest(inner(drawn)), lowest(inner(drawn))];
    return Math.max(...ends.map((end) => String(Math.round(end)).length));
  }

  const letterSize = (height) => Math.round(Math.min(20, Math.max(11, 6 + height / 32)));

  // Plots are drawn one after the other, with as long a rest after each as it took: half of the time, at most, goes into
  // drawing, and buttons answer however fast the data come. What comes meanwhile is not drawn, but what came last.
  const LONGEST = 20000; // ms on the screen that a drawing may take: one that never ends would hold up all others
  let line = Promise.resolve();
  let seen = performance.now(); // since when the page is on the screen, without which browsers draw nothing
  document.addEventListener("visibilitychange", () => { seen = performance.now(); });

  // What ``work`` gives, or a refusal when that takes too long.
  function limited(work) {
    return new Promise((done, refused) => {
      const begun = performance.now();
      let timer = 0;
      const look = () => {
        const left = Math.max(begun, seen) + Plot.longest - performance.now();
        if (left <= 0 && !document.hidden) refused(Object.assign(new Error("drawing it takes too long"), { late: true }));
        else timer = setTimeout(look, Math.max(left, 1000));
      };
      timer = setTimeout(look, Plot.longest);
      Promise.resolve(work()).then(done, refused).finally(() => clearTimeout(timer));
    });
  }

  function turn(work) {
    let begun = 0;
    const mine = line.then(() => {
      begun = performance.now();
      return limited(work);
    });
    const rest = () => new Promise((done) => { setTimeout(done, Math.min(200, performance.now() - begun)); });
    line = mine.then(rest, rest);
    return mine;
  }

  class Plot {
    static longest = LONGEST;

    constructor(name) {
      this.name = name;
      this.data = null; // what is drawn
      this.newest = null; // what has come last
      this.painters = null;
      this.busy = null;
      this.again = false;
      this.fresh = true;
      this.closed = false; // no more on the page
      this.late = false; // its drawing took too long: it is a picture until somebody redraws it
      this.title = element("button", { type: "button", class: "plain title", title: "Only this plot" }, name);
      this.mark = element("span", {});
      this.facts = element("span", { class: "facts-line soft" });
      this.age = element("time", { class: "age soft" });
      this.main = element("div", { class: "draw" });
      this.below = element("div", { class: "draw ratio", hidden: "" });
      this.field = element("div", { class: "field" }, this.main, this.below);
      this.base = []; // what is said of the plot however it is drawn
      this.figure = element("figure", { class: "plot", "data-plot": name }, element("figcaption", {}, this.title, this.mark, this.facts, this.age), this.field);
      this.wait("No data yet: it appears with the first spill.");
    }

    // Words instead of a drawing.
    wait(words) {
      this.clear();
      this.main.replaceChildren(element("p", { class: "empty" }, words));
    }

    // New data. They are drawn unless the picture is held. What was asked for and what is sent may overtake one another:
    // older data than those that are there are none.
    offer(data, held) {
      const older = this.newest && this.newest.life === data.life && data.number < this.newest.number;
      if (!older) this.newest = data;
      if (!held || !this.data) this.draw();
    }

    // Draw what has come last; ``fresh`` begins anew, with the axes as they were at first.
    draw(fresh = false) {
      if (!this.newest) return Promise.resolve();
      this.data = this.newest;
      return this.show(fresh);
    }

    // Draw the same data again with the axes as they were at first.
    redraw() {
      this.late = false;
      return this.data ? this.show(true) : Promise.resolve();
    }

    show(fresh) {
      this.fresh = this.fresh || fresh;
      if (this.busy) {
        this.again = true; // what is newest then is drawn, and nothing in between
        return this.busy;
      }
      let painted = null;
      this.busy = turn(() => {
        painted = this.data;
        return this.closed ? undefined : this.paint();
      }).catch((error) => {
        this.painters = null;
        this.fresh = true;
        this.late = Boolean(error && error.late);
        if (this.closed) return;
        if (this.late) { // what still goes on there draws where nobody sees it
          const other = element("div", { class: "draw" });
          this.main.replaceWith(other);
          this.main = other;
        }
        this.wait(`This plot cannot be drawn: ${error && error.message ? error.message : error}`);
        if (this.late) this.picture(this.data.header);
      }).then(() => {
        this.busy = null;
        const again = this.again && (this.fresh || painted !== this.data);
        this.again = false;
        return again ? this.show(false) : undefined;
      });
      return this.busy;
    }

    caption(header) {
      this.figure.dataset.quality = known(header.quality);
      this.figure.dataset.number = this.data.number;
      this.title.textContent = header.title;
      const words = header.verdict && typeof header.verdict.sentence === "string" ? header.verdict.sentence : header.reference ? `compared with ${header.reference}` : "";
      const made = known(header.quality) === "none" ? spot("none") : chip(header.quality);
      if (words) made.title = words;
      this.mark.replaceChildren(made);
      const facts = [];
      if (typeof header.entries === "number") facts.push(`${number(header.entries)} ${header.entries === 1 ? "entry" : "entries"}`);
      if (typeof header.spill === "number") facts.push(`spill ${number(header.spill)}`);
      this.base = facts;
      this.note("");
      if (header.output_time) {
        this.age.dataset.age = header.output_time;
        this.age.title = header.output_time;
      }
      window.page.tick();
    }

    // A plot that has stood still while others of its run went on says so.
    old(newest) {
      const time = this.newest && this.newest.header.output_time;
      this.figure.toggleAttribute("data-old", Boolean(time) && Date.parse(newest) - Date.parse(time) > OLD);
    }

    // What the drawing shows besides the data of this run.
    note(words) {
      this.facts.textContent = [this.base[0], words, this.base[1]].filter(Boolean).join(" · ");
      this.facts.title = this.facts.textContent;
    }

    async paint() {
      const { header, object, fault } = this.data;
      this.caption(header);
      if (!object) {
        this.painters = null;
        this.fresh = true;
        this.wait(`This plot cannot be drawn: ${fault || "it has no histogram"}.`);
        return;
      }
      if (!J || this.late) {
        this.picture(header);
        return;
      }
      const drawn = this.histogram(object);
      const two = plane(drawn);
      if (two) {
        await this.paintPlane(drawn, header);
        return;
      }
      const reference = state.reference === "1" && this.data.reference ? this.histogram(this.data.reference) : null;
      const over = reference && alike(drawn, reference) && this.scaled(drawn, reference) ? reference : null;
      const ratio = over && state.ratio === "1" ? this.divided(drawn, over, this.data.ratio) : null;
      if (over) this.note(`dashed: ${header.reference || "reference"}, scaled`);
      const options = this.options(header, drawn, two);
      if (!options.logy) {
        const values = inner(drawn);
        if (lowest(values) >= 0) drawn.fMinimum = 0; // counts begin at nothing
        if (over) drawn.fMaximum = 1.08 * Math.max(highest(values), highest(inner(over)), 0.5);
      }
      await this.put({ drawn, over, below: ratio, options, labels: ["", ""] });
    }

    // A plot of two axes cannot have its reference drawn over it: it stands beside it where there is room, or one of them,
    // their ratio or their difference is shown.
    async paintPlane(drawn, header) {
      const given = state.reference === "1" && this.data.reference ? this.histogram(this.data.reference) : null;
      const reference = given && alike(drawn, given) && this.scaled(drawn, given) ? given : null;
      const room = this.field.clientWidth >= WIDE && this.field.clientWidth > 1.4 * this.field.clientHeight;
      const how = reference ? state.plane || (room ? "beside" : "data") : "data";
      const name = header.reference || "reference";
      const options = this.options(header, drawn, true);
      let shown = drawn;
      let beside = null;
      const labels = ["", ""];
      if (how === "beside") {
        beside = reference;
        if (!options.logz) for (const one of [drawn, beside]) one.fMaximum = Math.max(highest(inner(drawn)), highest(inner(beside)));
        labels.splice(0, 2, "this run", `${name}, scaled`);
      } else if (how === "reference") {
        shown = reference;
        labels[0] = `not this run: ${name}, scaled`;
      } else if (how === "ratio") {
        shown = this.divided(drawn, reference, this.data.ratio);
        labels[0] = `this run / ${name}`;
        options.words += ` ${COLD_WARM}`;
      } else if (how === "difference") {
        shown = this.pulls(drawn, reference);
        labels[0] = `this run - ${name}, in standard deviations`;
        options.words += ` ${COLD_WARM}`;
      }
      this.note(how === "beside" ? `right: ${labels[1]}` : labels[0]);
      await this.put({ drawn: shown, over: null, below: beside, beside: Boolean(beside), options, labels, how });
    }

    // On the screen: into what is there, so that the axes stay as somebody has set them, or anew.
    async put(wanted) {
      const { drawn, over, below, options, how } = wanted;
      const axis = drawn.fXaxis;
      const shape = JSON.stringify([options, how, drawn._typename, axis.fNbins, axis.fXmin, axis.fXmax, Boolean(over), Boolean(below)]);
      if (this.painters && !this.fresh && shape === this.shape) await this.update(drawn, over, below);
      else await this.start(wanted, shape);
    }

    clear() {
      this.painters = null;
      this.shape = null;
      if (J) {
        J.cleanup(this.main);
        J.cleanup(this.below);
      }
      this.main.replaceChildren();
      this.below.replaceChildren();
      this.below.hidden = true;
      for (const name of ["data-beside", "role", "aria-label"]) this.field.removeAttribute(name);
      for (const field of [this.main, this.below]) field.removeAttribute("data-label");
    }

    async start({ drawn, over, below: second, beside, options, labels }, shape) {
      this.fresh = false;
      this.clear();
      this.below.hidden = !second;
      this.field.toggleAttribute("data-beside", Boolean(beside));
      for (const [place, field] of [this.main, this.below].entries()) if (labels[place]) field.dataset.label = labels[place];
      this.wide = Math.min(3, Math.max(0, letters(drawn) - 4)); // letters of numbers more than usual
      const size = this.sheet(this.main, drawn._typename);
      this.size = size;
      this.deep = /lego|surf/i.test(options.words);
      this.main.toggleAttribute("data-scale", /^(col|cont)/i.test(options.words));
      this.height = this.main.clientHeight;
      this.marks = 500 + Math.max(2, Math.min(10, Math.floor(this.height / (2.6 * size)))); // numbers that have room
      this.across = 500 + Math.max(2, Math.min(10, Math.floor(this.main.clientWidth / (4.5 * size))));
      this.dress(drawn, size);
      if (drawn.fXaxis.fNbins > this.main.clientWidth / 4) drawn.fLineWidth = 1;
      const field = this.main;
      const gone = () => this.closed || this.main !== field; // off the page, or given up, while it was drawn
      const main = await J.draw(field, drawn, options.words);
      const other = over && !gone() ? await J.draw(field, over, "hist same nostat") : null;
      if (second && !gone()) {
        this.sheet(this.below, beside ? second._typename : "", beside ? 0 : size);
        if (beside) {
          this.below.toggleAttribute("data-scale", this.main.hasAttribute("data-scale"));
        }
        this.dress(second, size);
      }
      const below = second && !gone() ? await J.draw(this.below, second, beside ? `${options.words} nostat` : `p e nostat${options.logx ? " logx" : ""}`) : null;
      if (gone()) {
        J.cleanup(field);
        if (this.closed) J.cleanup(this.below);
        return;
      }
      this.painters = { main, other, below };
      this.shape = shape;
      this.field.setAttribute("role", "img"); // its lines and numbers one by one say nothing to whoever hears them
      this.field.setAttribute("aria-label", `Drawing of ${this.title.textContent}`);
      if (below) this.follow(beside);
    }

    // Letters and margins for the size on the screen, in pixels: readable in a small field, not huge in a large one.
    sheet(field, kind, letters = 0) {
      const height = Math.max(field.clientHeight, 60);
      const width = Math.max(field.clientWidth, 120);
      const size = letters || letterSize(height);
      Object.assign(J.gStyle, {
        fPadTopMargin: Math.min(0.2, ((letters ? 0.6 : 1.3) * size) / height), fPadBottomMargin: Math.min(0.4, ((letters ? 1.6 : 3.1) * size) / height),
        fPadLeftMargin: Math.min(0.3, ((5 + 0.6 * this.wide) * size) / width), fPadRightMargin: Math.min(0.3, ((plane({ _typename: kind }) ? 5.5 : 2.5) * size) / width),
        fStatW: Math.min(0.4, (11 * size) / width), fStatH: Math.min(0.5, (4.6 * size) / height), fStatX: 1 - (2.7 * size) / width, fStatY: 1 - (1.4 * size) / height,
      });
      return size;
    }

    async update(drawn, over, ratio) {
      const { main, other, below } = this.painters;
      this.dress(drawn, this.size);
      if (drawn.fXaxis.fNbins > this.main.clientWidth / 4) drawn.fLineWidth = 1;
      if (ratio) this.dress(ratio, this.size);
      if (other && over) other.updateObject(over);
      main.updateObject(drawn);
      await main.redrawPad();
      if (below && ratio) await below.redrawObject(ratio);
    }

    // The ratio shows the part of the axis that the plot shows; two planes beside each other show the same part.
    follow(beside) {
      const above = this.painters.main.getFramePainter();
      const below = this.painters.below.getFramePainter();
      if (!above || !below) return;
      const zooms = new Map([above, below].map((frame) => [frame, frame.zoom.bind(frame)]));
      const lead = (frame, other) => {
        frame.zoom = (...given) => Promise.resolve(zooms.get(frame)(...given)).then(async (done) => {
          if (this.painters && this.painters.below && this.painters.below.getFramePainter() === below) {
            await zooms.get(other)("x", frame.zoom_xmin, frame.zoom_xmax);
            if (beside) await zooms.get(other)("y", frame.zoom_ymin, frame.zoom_ymax);
          }
          return done;
        });
      };
      lead(above, below);
      if (beside) lead(below, above);
    }

    histogram(object) {
      const made = J.parse(JSON.stringify(object));
      shorten(made.fXaxis);
      if (plane(made)) {
        made.fZaxis.fTitle = ""; // it would stand on the scale's numbers
        return made;
      }
      Object.assign(made, { fLineColor: LINE, fLineWidth: 2, fFillColor: FILL, fFillStyle: 1001 });
      return made;
    }

    dress(histogram, size) {
      if (this.deep) return; // three dimensions have letters of their own
      for (const axis of [histogram.fXaxis, histogram.fYaxis, histogram.fZaxis]) {
        Object.assign(axis, { fLabelFont: PIXELS, fTitleFont: PIXELS, fLabelSize: size, fTitleSize: size, fTickLength: 0.015, fTitleOffset: 1.1 });
      }
      histogram.fYaxis.fTitleOffset = 2.2 + 0.6 * this.wide;
      if (!histogram.fXaxis.fLabels) histogram.fXaxis.fNdivisions = this.across;
      if (!/ratio$/.test(histogram.fName) || plane(histogram)) histogram.fYaxis.fNdivisions = this.marks;
    }

    // The reference with as many entries as the plot: what is compared is the shape.
    scaled(drawn, reference) {
      const factor = sum(inner(drawn)) / sum(inner(reference));
      if (!(factor > 0) || !Number.isFinite(factor)) return false;
      reference.fSumw2 = Array.from(errors(reference)).map((value) => value * factor * factor);
      reference.fArray = Array.from(reference.fArray).map((value) => value * factor);
      Object.assign(reference, { fLineColor: OTHER, fLineStyle: 2, fFillColor: 0, fFillStyle: 0 });
      return true;
    }

    divided(drawn, over, given) {
      const ready = given && alike(drawn, given);
      const made = J.parse(JSON.stringify(ready ? given : this.data.object));
      if (!ready) {
        made.fArray = Array.from(drawn.fArray).map((value, bin) => (over.fArray[bin] > 0 ? value / over.fArray[bin] : 0));
        made.fSumw2 = Array.from(errors(drawn)).map((value, bin) => (over.fArray[bin] > 0 ? Math.abs(value) / over.fArray[bin] ** 2 : 0));
      }
      Object.assign(made, { fName: `${drawn.fName}/ratio`, fMinimum: 0, fMaximum: 2 });
      if (plane(made)) return this.limits(made, 0, 2);
      Object.assign(made, { fFillColor: 0, fFillStyle: 0, fLineColor: LINE, fMarkerStyle: 20, fMarkerSize: 0.6, fMarkerColor: LINE, fLineWidth: 1 });
      Object.assign(made.fYaxis, { fTitle: "ratio", fNdivisions: 202 });
      made.fXaxis.fTitle = "";
      return made;
    }

    // By how many standard deviations each bin differs from the reference.
    pulls(drawn, reference) {
      const made = J.parse(JSON.stringify(this.data.object));
      const [mine, its] = [errors(drawn), errors(reference)];
      made.fArray = Array.from(drawn.fArray).map((value, bin) => {
        const spread = Math.sqrt(Math.abs(mine[bin]) + Math.abs(its[bin]));
        return spread > 0 ? (value - reference.fArray[bin]) / spread : 0;
      });
      return this.limits(Object.assign(made, { fName: `${drawn.fName}/difference`, fSumw2: [] }), -PULLS, PULLS);
    }

    // Colours from one value to another; what lies beyond has the last colour instead of none.
    limits(made, least, most) {
      made.fArray = Array.from(made.fArray).map((value) => Math.min(most * 0.9999, Math.max(least + (most - least) * 0.0001 * (least < 0), value)));
      made.fZaxis.fTitle = "";
      return Object.assign(made, { fMinimum: least, fMaximum: most });
    }

    options(header, drawn, two) {
      const style = header.style || {};
      const on = (name) => (state[name] === "" ? Boolean(style[name]) : state[name] === "1");
      const drawing = two ? state.style || (typeof style.draw === "string" && /^[a-z0-9 ]{1,20}$/i.test(style.draw) ? style.draw : "colz") : "hist";
      const positive = drawn.fXaxis.fXmin > 0;
      const logx = on("logx") && positive;
      const logy = on("logy") && (!two || drawn.fYaxis.fXmin > 0);
      const words = [drawing];
      if (logx) words.push("logx");
      if (logy) words.push("logy");
      if (two && on("logz")) words.push("logz");
      if (!(state.stats === "" ? style.stats ?? (!two && this.main.clientWidth > ROOMY) : state.stats === "1")) words.push("nostat");
      return { words: words.join(" "), logx, logy, logz: two && on("logz") };
    }

    picture(header) {
      const address = `${base}/png?${new URLSearchParams({ run: header.run, plot: this.name, size: "medium", v: this.data.number })}`;
      let image = this.main.querySelector("img");
      if (!image) {
        image = element("img", { alt: header.title });
        image.addEventListener("error", () => this.wait("The picture of this plot cannot be had just now."));
        this.clear();
        this.main.append(image);
      }
      image.src = address;
    }

    resized() {
      if (!J || this.closed) return;
      if (this.busy) { // never under a drawing's hands
        this.busy.then(() => this.resized());
        return;
      }
      if (!this.painters) return;
      const change = this.main.clientHeight / (this.height || 1);
      if (change > 1.2 || change < 0.8) { // another size of letters
        this.redraw();
        return;
      }
      J.resize(this.main);
      if (!this.below.hidden) J.resize(this.below);
    }

    close() {
      this.closed = true;
      this.clear();
      this.figure.remove();
    }
  }

  Object.assign(window.room, { Plot, element, icon, chip, spot, number, base });
})();
