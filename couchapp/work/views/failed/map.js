// Documents that a step gave up on. Key [step's keyword, class of the error, when]; the keyword is null where a person
// gave up on the document. Older databases write "proc1 failed".
function map(doc) {
  var match, name, step, key = null, entry, reason;
  if (doc.type !== "@type@" || typeof doc.status !== "string") return;
  match = /^(?:proc ?(\d+) )?failed$/.exec(doc.status);
  if (!match) return;
  if (match[1]) key = "proc" + Number(match[1]);
  for (name in doc) {
    step = /^proc(\d+)$/.exec(name);
    if (step && doc[name] && doc[name].state === "failed") {
      if (key === null || Number(step[1]) < Number(key.slice(4))) key = name;
    }
  }
  entry = (key !== null && doc[key]) || {};
  reason = typeof entry.reason === "string" ? entry.reason : doc.reason;
  reason = typeof reason === "string" ? reason.slice(0, 200).replace(/[\ud800-\udbff]$/, "") : null;
  emit([key, entry.error_class, entry.finished || doc.updated], {reason: reason});
}
