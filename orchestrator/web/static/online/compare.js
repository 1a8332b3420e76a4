// Two runs: each pair of plots is fetched when it comes into sight, and drawn beside or over one another.
"use strict";

(() => {
  const { Plot, element, base } = window.room;
  const page = document.getElementById("pairs");
  const over = page.dataset.how === "over";

  async function one(run, name) {
    const answer = await fetch(`${base}/api/plots?${new URLSearchParams({ run, plots: name })}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    return (await answer.json())[0] || null;
  }

  async function draw(place) {
    const name = place.dataset.name;
    const [a, b] = await Promise.all([one(page.dataset.a, name), one(page.dataset.b, name)]);
    const field = place.querySelector(".sheets");
    field.replaceChildren();
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

  // Words and a button instead of an empty place.
  function failed(place, error) {
    const again = element("button", { type: "button" }, "Try again");
    again.addEventListener("click", () => show(place));
    const words = `This plot could not be had (${error && error.message ? error.message : error}). `;
    place.querySelector(".sheets").replaceChildren(element("p", { class: "empty", role: "status" }, words, again));
  }

  const show = (place) => draw(place).catch((error) => failed(place, error));

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      show(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const place of page.querySelectorAll("[data-name]")) watcher.observe(place);
})();
