// What each DAQ machine has written, by status.
function map(doc) {
  if (doc.type !== "@type@") return;
  emit([doc.hostname, typeof doc.status === "string" ? doc.status : null], null);
}
