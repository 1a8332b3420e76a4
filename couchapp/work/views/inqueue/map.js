// Documents whose batch job waits at a farm. Key [step number, since].
function map(doc) {
  var match, held;
  if (doc.type !== "@type@" || typeof doc.status !== "string") return;
  match = /^proc ?(\d+) queued$/.exec(doc.status);
  if (!match) return;
  held = doc["proc" + Number(match[1])] || {};
  emit([Number(match[1]), held.queued || held.submitted || held.started || doc.updated],
    {attempt: held.attempt, host: held.host, pid: held.pid, poller: held.poller});
}
