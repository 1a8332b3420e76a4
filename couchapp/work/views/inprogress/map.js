// Documents that some step holds. Key [step number, since].
function map(doc) {
  var match, held;
  if (doc.type !== "@type@" || typeof doc.status !== "string") return;
  match = /^proc ?(\d+) in progress$/.exec(doc.status);
  if (!match) return;
  held = doc["proc" + Number(match[1])] || {};
  emit([Number(match[1]), held.started],
    {attempt: held.attempt, host: held.host, pid: held.pid, poller: held.poller});
}
