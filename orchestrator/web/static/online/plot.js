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

  // The bins of a drawn histogram, all of them: JSROOT has opened its short form of arrays by then.
  const inner = (histogram) => Array.from(histogram.fArray).slice(1, -1);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const alike = (a, b) => a && b && a.fXaxis.fNbins === b.fXaxis.fNbins && a._typename.slice(0, 3) === b._typename.slice(0, 3);

  const letterSize = (height) => Math.round(Math.min(20, Math.max(11, 6 + height / 32)));

  // Plots are drawn one after the other, with as long a rest after each as it took: half of the time, at most, goes into
  // drawing, and buttons answer however fast the data come. What comes meanwhile is not drawn, but what came last.
  let line = Promise.resolve();

  function turn(work) {
    let begun = 0;
    const mine = line.then(() => {
      begun = performance.now();
      return work();
    });
    const rest = () => new Promise((done) => { setTimeout(done, Math.min(200, performance.now() - begun)); });
    line = mine.then(rest, rest);
    return mine;
  }

  class Plot {
    constructor(name) {
      this.name = name;
      this.data = null; // what is drawn
      this.newest = null; // what has come last
      this.painters = null;
      this.busy = null;
      this.again = false;
      this.fresh = true;
      this.closed = false; // no more on the page
      this.title = element("button", { type: "button", class: "plain title", title: "Only this plot" }, name);
      this.mark = element("span", {});
      this.facts = element("span", { class: "facts-line soft" });
      this.age = element("time", { class: "age soft" });
      this.main = element("div", { class: "draw" });
      this.below = element("div", { class: "draw ratio", hidden: "" });
      this.figure = element("figure", { class: "plot", "data-plot": name }, element("figcaption", {}, this.title, this.mark, this.facts, this.age), this.main, this.below);
      this.wait("No data yet: it appears with the first spill.");
    }

    wait(words) {
      this.main.replaceChildren(element("p", { class: "empty" }, words));
    }

    // New data. They are drawn unless the picture is held.
    offer(data, held) {
      this.newest = data;
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
        this.wait(`This plot cannot be drawn: ${error && error.message ? error.message : error}`);
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
      if (typeof header.entries === "number") facts.push(`${number(header.entries)} entries`);
      if (typeof header.spill === "number") facts.push(`spill ${number(header.spill)}`);
      if (header.reference && state.reference === "1") facts.push(`dashed: ${header.reference}, scaled`);
      this.facts.textContent = facts.join(" · ");
      if (header.output_time) {
        this.age.dataset.age = header.output_time;
        this.age.title = header.output_time;
      }
      window.page.tick();
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
      if (!J) {
        this.picture(header);
        return;
      }
      const drawn = this.histogram(object);
      const two = /^T(H2|Profile2D)/.test(drawn._typename);
      const reference = !two && state.reference === "1" && this.data.reference ? this.histogram(this.data.reference) : null;
      const over = reference && alike(drawn, reference) && this.scaled(drawn, reference) ? reference : null;
      const ratio = over && state.ratio === "1" ? this.divided(drawn, over, this.data.ratio) : null;
      const options = this.options(header, drawn, two);
      const shape = JSON.stringify([options, two, drawn.fXaxis.fNbins, drawn.fXaxis.fXmin, drawn.fXaxis.fXmax, Boolean(over), Boolean(ratio)]);
      if (!two && !options.logy) {
        const values = inner(drawn);
        if (Math.min(...values) >= 0) drawn.fMinimum = 0; // counts begin at nothing
        if (over) drawn.fMaximum = 1.08 * Math.max(...values, ...inner(over), 0.5);
      }
      if (this.painters && !this.fresh && shape === this.shape) await this.update(drawn, over, ratio);
      else await this.begin(drawn, over, ratio, options, shape);
    }

    async begin(drawn, over, ratio, options, shape) {
      this.fresh = false;
      this.shape = null;
      J.cleanup(this.main);
      J.cleanup(this.below);
      this.main.replaceChildren();
      this.below.hidden = !ratio;
      this.below.replaceChildren();
      const size = this.sheet(this.main, drawn._typename);
      this.size = size;
      this.deep = /lego|surf/i.test(options.words);
      this.main.toggleAttribute("data-scale", /^(col|cont)/i.test(options.words));
      this.height = this.main.clientHeight;
      this.marks = 500 + Math.max(2, Math.min(10, Math.floor(this.height / (2.6 * size)))); // numbers that have room
      drawn.fYaxis.fNdivisions = this.marks;
      this.dress(drawn, size);
      if (drawn.fXaxis.fNbins > this.main.clientWidth / 4) drawn.fLineWidth = 1;
      const main = await J.draw(this.main, drawn, options.words);
      const other = over && !this.closed ? await J.draw(this.main, over, "hist same nostat") : null;
      if (this.closed) return;
      if (ratio) {
        this.sheet(this.below, "", size);
        this.dress(ratio, size);
      }
      const below = ratio ? await J.draw(this.below, ratio, `p e nostat${options.logx ? " logx" : ""}`) : null;
      this.painters = { main, other, below };
      this.shape = shape;
      if (below) this.follow();
    }

    // Letters and margins for the size on the screen, in pixels: readable in a small field, not huge in a large one.
    sheet(field, kind, letters = 0) {
      const height = Math.max(field.clientHeight, 60);
      const width = Math.max(field.clientWidth, 120);
      const size = letters || letterSize(height);
      Object.assign(J.gStyle, {
        fPadTopMargin: Math.min(0.2, ((letters ? 0.6 : 1.3) * size) / height), fPadBottomMargin: Math.min(0.4, ((letters ? 1.6 : 3.1) * size) / height),
        fPadLeftMargin: Math.min(0.3, (5 * size) / width), fPadRightMargin: Math.min(0.3, ((/^T(H2|Profile2D)/.test(kind) ? 5.5 : 2.5) * size) / width),
        fStatW: Math.min(0.4, (11 * size) / width), fStatH: Math.min(0.5, (4.6 * size) / height), fStatX: 1 - (2.7 * size) / width, fStatY: 1 - (1.4 * size) / height,
      });
      return size;
    }

    async update(drawn, over, ratio) {
      const { main, other, below } = this.painters;
      this.dress(drawn, this.size);
      drawn.fYaxis.fNdivisions = this.marks;
      if (drawn.fXaxis.fNbins > this.main.clientWidth / 4) drawn.fLineWidth = 1;
      if (ratio) this.dress(ratio, this.size);
      if (other && over) other.updateObject(over);
      main.updateObject(drawn);
      await main.redrawPad();
      if (below && ratio) await below.redrawObject(ratio);
    }

    // The ratio shows the part of the axis that the plot shows.
    follow() {
      const above = this.painters.main.getFramePainter();
      const below = this.painters.below.getFramePainter();
      if (!above || !below) return;
      const zoom = above.zoom;
      above.zoom = (...given) => Promise.resolve(zoom.apply(above, given)).then((done) => {
        if (this.painters && this.painters.below && this.painters.below.getFramePainter() === below) {
          below.zoom("x", above.zoom_xmin, above.zoom_xmax);
        }
        return done;
      });
    }

    histogram(object) {
      const made = J.parse(JSON.stringify(object));
      if (/^T(H2|Profile2D)/.test(made._typename)) {
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
      histogram.fYaxis.fTitleOffset = 2.2;
    }

    // The reference with as many entries as the plot: what is compared is the shape.
    scaled(drawn, reference) {
      const factor = sum(inner(drawn)) / sum(inner(reference));
      if (!(factor > 0) || !Number.isFinite(factor)) return false;
      const errors = reference.fSumw2 && reference.fSumw2.length ? Array.from(reference.fSumw2) : Array.from(reference.fArray);
      reference.fSumw2 = errors.map((value) => value * factor * factor);
      reference.fArray = Array.from(reference.fArray).map((value) => value * factor);
      Object.assign(reference, { fLineColor: OTHER, fLineStyle: 2, fFillColor: 0, fFillStyle: 0 });
      return true;
    }

    divided(drawn, over, given) {
      const made = J.parse(JSON.stringify(given && alike(drawn, given) ? given : drawn));
      if (!given || !alike(drawn, given)) {
        const errors = drawn.fSumw2 && drawn.fSumw2.length ? drawn.fSumw2 : drawn.fArray;
        made.fArray = Array.from(drawn.fArray).map((value, bin) => (over.fArray[bin] > 0 ? value / over.fArray[bin] : 0));
        made.fSumw2 = Array.from(errors).map((value, bin) => (over.fArray[bin] > 0 ? Math.abs(value) / over.fArray[bin] ** 2 : 0));
      }
      Object.assign(made, { fName: `${drawn.fName}/ratio`, fMinimum: 0, fMaximum: 2, fFillColor: 0, fFillStyle: 0, fLineColor: LINE, fMarkerStyle: 20, fMarkerSize: 0.6, fMarkerColor: LINE, fLineWidth: 1 });
      Object.assign(made.fYaxis, { fTitle: "ratio", fNdivisions: 202 });
      made.fXaxis.fTitle = "";
      return made;
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
      return { words: words.join(" "), logx, logy };
    }

    picture(header) {
      const address = `${base}/png?${new URLSearchParams({ run: header.run, plot: this.name, size: "medium", v: this.data.number })}`;
      let image = this.main.querySelector("img");
      if (!image) {
        image = element("img", { alt: header.title });
        this.main.replaceChildren(image);
      }
      image.src = address;
    }

    resized() {
      if (!J || !this.painters) return;
      const change = this.main.clientHeight / (this.height || 1);
      if (change > 1.2 || change < 0.8) { // another size of letters
        this.redraw();
        return;
      }
      J.resize(this.main);
      if (!this.below.hidden) J.resize(this.below);
    }

    close() {
      if (J) {
        J.cleanup(this.main);
        J.cleanup(this.below);
      }
      this.painters = null;
      this.closed = true;
      this.figure.remove();
    }
  }

  Object.assign(window.room, { Plot, element, icon, chip, spot, number, base });
})();
