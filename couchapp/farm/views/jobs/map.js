// Attempts that farms have in their hands, for counts by job. Key [site, farm, job, step's keyword, number, state, node],
// value since when, in milliseconds since 1970 (0: nobody knows); _stats of it gives the count, and the oldest.
// States: intended (not known to be submitted), queued, held, running, cancelling (a person has said so).
function map(doc) {
  var match, entry, jobs, i, number = null, submitted, state, since;

  function time(text) {
    var ms = typeof text === "string" ? Date.parse(text) : NaN;
    return isFinite(ms) ? ms : 0;
  }

  function text(value) {
    return typeof value === "string" ? value : null;
  }

  if (doc.type !== "@type@" || typeof doc.status !== "string") return;
  match = /^proc ?(\d+) (queued|in progress)$/.exec(doc.status);
  entry = match && doc["proc" + Number(match[1])];
  if (!entry || typeof entry.farm !== "string" || typeof entry.job !== "string") return;
  jobs = Array.isArray(doc.batchjob) ? doc.batchjob : [];
  for (i = jobs.length - 1; i >= 0; i--) {
    if (jobs[i] && jobs[i].attempt === entry.attempt) {
      number = text(jobs[i].number);
      submitted = jobs[i].submitted;
      break;
    }
  }
  if (match[2] === "in progress") state = "running";
  else if (number === null) state = "intended";
  else state = typeof entry.says === "string" && entry.says !== "" ? "held" : "queued";
  since = state === "running" ? time(entry.started) : time(submitted) || time(entry.queued);
  if (entry.cancel) state = "cancelling";
  emit([text(entry.site), entry.farm, entry.job, "proc" + Number(match[1]), number, state, text(entry.host)], since);
}
