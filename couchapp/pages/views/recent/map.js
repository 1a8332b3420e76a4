// What changed last.
function map(doc) {
  if (doc.type !== "@type@") return;
  emit([doc.updated], {status: doc.status});
}
