// Two runs: each pair of plots is fetched when it comes into sight, and drawn beside or over one another.
"use strict";

(() => {
  const { Plot, base } = window.room;
  const page = document.getElementById("pairs");
  const over = page.dataset.how === "over";

  async function one(run, name) {
    const answer = await fetch(`${base}/api/plots?${new URLSearchParams({ run, plots: name })}`, { headers: { Accept: "application/json" } });
    const found = answer.ok ? await answer.json() : [];
    return found[0] || null;
  }

  async function draw(place) {
    const name = place.dataset.name;
    const [a, b] = await Promise.all([one(page.dataset.a, name), one(page.dataset.b, name)]);
    const field = place.querySelector(".sheets");
    const cells = over && a && b ? [{ ...a, reference: b.object, header: { ...a.header, reference: `run ${page.dataset.b}` } }] : [a, b];
    for (const data of cells) {
      if (!data) continue;
      const cell = new Plot(name);
      field.append(cell.figure);
      if (!over) data.reference = null;
      cell.offer(data, false);
      await cell.busy;
      cell.title.textContent = over ? data.header.title : `Run ${data.header.run}`;
    }
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target).catch(() => {});
    }
  }, { rootMargin: "400px" });
  for (const place of page.querySelectorAll("[data-name]")) watcher.observe(place);
})();
