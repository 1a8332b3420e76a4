// What a gather could take up. Key [period or "", run], value [1, whether it is ready, bytes, when it became so (s)],
// summed; documents that have been taken up already are not there. Times are of the database's documents.
function map(doc) {
  var gather = "@gather@", i, need, ready = 1, moved, entry, size, period, status;
  if (doc.type !== "@type@") return;
  status = doc.main_status === undefined ? doc.status : doc.main_status; // seen from a lane, the main one's is beside it
  if (gather.leave_out.indexOf(status) >= 0) return;
  if (gather.step !== null && (doc[gather.step] !== undefined || doc.status === "bad" || doc.status === "failed")) return;
  if (doc.run_name && typeof doc.run_name === "object") return; // no name
  if (status === "open" || doc.hold) ready = 0;
  for (i = 0; i < gather.after.length; i++) {
    need = entry = doc[gather.after[i]];
    if (!need || need.state !== "done") ready = 0;
  }
  if (gather.step !== null && doc.status !== "closed" && doc.status !== "good") ready = 0;
  moved = Date.parse(entry && entry.finished || doc.registered || "") / 1000;
  size = entry && typeof entry.size === "number" ? entry.size : typeof doc.size === "number" ? doc.size : 0;
  period = gather.period && typeof doc.registered === "string" ? doc.registered.slice(0, gather.period) : "";
  emit([period, doc.run_name === undefined ? null : doc.run_name], [1, ready, size, moved === moved ? moved : 0]);
}
