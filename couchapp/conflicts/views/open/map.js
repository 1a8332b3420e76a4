// Documents of which there is more than one version. Key [type, status]; the value names the versions, winner first.
function map(doc) {
  if (doc._conflicts) emit([doc.type || null, doc.status || null], [doc._rev].concat(doc._conflicts));
}
