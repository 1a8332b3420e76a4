// Documents that one step holds, by when it began: whose they are, for leases and for the page.
function map(doc) {
  var step = "@step@", held;
  if (doc.type !== "@type@" || typeof doc.status !== "string") return;
  if (doc.status.replace(/^proc ?/, "") !== step.number + " in progress") return;
  held = doc[step.key] || {};
  emit([held.started], {attempt: held.attempt, host: held.host, pid: held.pid, poller: held.poller});
}
