// Documents that are ready for one step: status closed or good, the steps it needs done, its own keyword not there, and
// no person's hold.
// One view for each step of the chain: proc0, proc1, ... The same rule as documents.ready in Python.
// Key [-priority, run, file number]: sooner first, then in the order of the runs.
function map(doc) {
  var step = "@step@", needs = step.needs, i, need;
  if (doc.type !== "@type@" || (doc.status !== "closed" && doc.status !== "good")) return;
  if (doc[step.key] !== undefined || (doc.hold !== undefined && doc.hold !== null)) return;
  for (i = 0; i < needs.length; i++) {
    need = doc[needs[i]];
    if (!need || need.state !== "done") return;
  }
  emit([typeof doc.priority === "number" ? 0 - doc.priority : 0, doc.run_name, doc.file_number], null);
}
