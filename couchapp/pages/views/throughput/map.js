// Steps done by the hour (UTC): key [step number, year, month, day, hour], value the seconds each took.
function map(doc) {
  var steps = "@chain@".steps, i, entry, at;
  if (doc.type !== "@type@") return;
  for (i = 0; i < steps.length; i++) {
    entry = doc[steps[i].key];
    if (!entry || entry.state !== "done" || typeof entry.finished !== "string") continue;
    at = /^(\d{4})-(\d\d)-(\d\d)T(\d\d)/.exec(entry.finished);
    if (!at) continue;
    emit([i, Number(at[1]), Number(at[2]), Number(at[3]), Number(at[4])],
      typeof entry.seconds === "number" && isFinite(entry.seconds) ? entry.seconds : 0);
  }
}
