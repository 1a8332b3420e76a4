// Where each document stands at each step: exactly one row for each step. Key [step number, state], value since when,
// in milliseconds since 1970 (0: nobody knows); _stats of it gives the count, and the oldest as its minimum.
// States: waiting (for an earlier step, or on hold), ready, queued, in progress, done, failed, bad (the document is, undone here).
function map(doc) {
  var steps = "@chain@".steps, status, match, kind, held, entered, i, j, step, entry, state, since, need, blamed, ready;

  function time(text) {
    var ms = typeof text === "string" ? Date.parse(text) : NaN;
    return isFinite(ms) ? ms : 0;
  }

  function member(value) {
    return value && typeof value === "object" ? value : {};
  }

  if (doc.type !== "@type@") return;
  status = typeof doc.status === "string" ? doc.status : "";
  match = /^proc ?(\d+) (queued|in progress|failed)$/.exec(status);
  kind = match ? match[2] : status;
  held = match ? Number(match[1]) : -1;
  entered = time(doc.registered) || time(doc.updated);
  // The step that a failed document is failed at; the first undone one where a person gave up on it.
  blamed = kind === "failed" ? held : -1;
  if (kind === "failed") {
    for (i = 0; i < steps.length && blamed < 0; i++) {
      if (member(doc[steps[i].key]).state === "failed") blamed = i;
    }
    for (i = 0; i < steps.length && blamed < 0; i++) {
      if (member(doc[steps[i].key]).state !== "done") blamed = i;
    }
  }
  for (i = 0; i < steps.length; i++) {
    step = steps[i];
    entry = member(doc[step.key]);
    since = entered;
    if (entry.state === "done") {
      state = "done";
      since = time(entry.finished) || time(doc.updated) || entered;
    } else if (kind === "bad") {
      state = "bad";
      since = time(doc.updated) || entered;
    } else if (kind === "failed" && blamed === i) {
      state = "failed";
      since = time(entry.finished) || time(doc.updated) || entered;
    } else if ((kind === "queued" || kind === "in progress") && held === i) {
      state = kind;
      since = (kind === "queued" && (time(entry.queued) || time(entry.submitted)))
        || time(entry.started) || time(doc.updated) || entered;
    } else {
      ready = (kind === "closed" || kind === "good") && doc[step.key] === undefined
        && (doc.hold === undefined || doc.hold === null);
      for (j = 0; j < step.needs.length; j++) {
        need = member(doc[step.needs[j]]);
        if (need.state !== "done") ready = false;
        else since = Math.max(since, time(need.finished));
      }
      state = ready ? "ready" : "waiting";
    }
    emit([i, state], since);
  }
}
