// Views saved by name, for shifters and for experts, and the link to this view.
"use strict";

(() => {
  const { element, query, take, base } = window.room;
  const choose = document.getElementById("sets");
  const said = document.getElementById("set-said");
  let sets = [];
  let asked = 0; // an answer to an earlier question does not undo that to a later one

  function say(words) {
    said.textContent = words;
  }

  async function ask(method, data) {
    const answer = await fetch(`${base}/api/sets`, { method, headers: { Accept: "application/json", ...(data ? { "Content-Type": "application/json" } : {}) }, body: data ? JSON.stringify(data) : undefined, cache: "no-store" });
    const got = await answer.json();
    if (!answer.ok) throw new Error(got.reason || "it could not be done");
    return got;
  }

  async function read() {
    const mine = asked += 1;
    const found = (await ask("GET")).sets;
    if (asked !== mine) return;
    sets = found;
    const chosen = choose.value; // somebody may have chosen meanwhile
    const groups = ["shifter", "expert"].map((group) => element("optgroup", { label: group === "shifter" ? "For shifters" : "For experts" }, ...sets.filter((one) => one.group === group).map((one) => element("option", { value: one.name }, one.name))));
    choose.replaceChildren(element("option", { value: "" }, "choose"), ...groups.filter((group) => group.children.length));
    choose.value = sets.some((one) => one.name === chosen) ? chosen : "";
  }

  choose.addEventListener("change", () => {
    const found = sets.find((one) => one.name === choose.value);
    if (!found) return;
    take(found.query);
    say(`${found.name} is shown.`);
  });
  document.getElementById("saving").addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = document.getElementById("set-name").value;
    try {
      const made = await ask("POST", { name, group: document.getElementById("set-group").value, query: query() });
      await read();
      choose.value = made.name;
      say(`${made.name} is saved.`);
    } catch (error) {
      say(`Not saved: ${error.message}`);
    }
  });
  document.getElementById("unsave").addEventListener("click", async () => {
    const name = choose.value;
    if (!name || !confirm(`Forget the set ${name}, for everybody?`)) return;
    try {
      await ask("DELETE", { name });
      await read();
      say(`${name} is forgotten.`);
    } catch (error) {
      say(`Not removed: ${error.message}`);
    }
  });
  document.getElementById("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      say("The link is copied: it shows this view.");
    } catch {
      say("The browser does not allow it: copy the address of this page, it shows this view.");
    }
  });
  document.getElementById("more").addEventListener("toggle", () => { read().catch(() => say("The saved sets cannot be read just now.")); });
  read().catch(() => {});
})();
