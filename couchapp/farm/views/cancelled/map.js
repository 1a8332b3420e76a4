// Attempts at farms that a person wants ended. Key [site, farm]: each farm's daemon looks for its own.
function map(doc) {
  var match, entry;
  if (doc.type !== "@type@" || typeof doc.status !== "string") return;
  match = /^proc ?(\d+) (queued|in progress)$/.exec(doc.status);
  entry = match && doc["proc" + Number(match[1])];
  if (!entry || !entry.cancel || typeof entry.farm !== "string") return;
  emit([entry.site, entry.farm], null);
}
