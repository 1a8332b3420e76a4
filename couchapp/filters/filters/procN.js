// Documents that are ready for one step; one filter for each step of the chain, by the rule of the view of that name.
function filter(doc, req) {
  var step = "@step@", i, need;
  if (doc.type !== "@type@" || doc._deleted || (doc.status !== "closed" && doc.status !== "good")) return false;
  if (doc[step.key] !== undefined || (doc.hold !== undefined && doc.hold !== null)) return false;
  for (i = 0; i < step.needs.length; i++) {
    need = doc[step.needs[i]];
    if (!need || need.state !== "done") return false;
  }
  return true;
}
