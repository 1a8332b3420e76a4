// How many documents of a run have which status.
function map(doc) {
  if (doc.type !== "@type@") return;
  emit([doc.run_name, typeof doc.status === "string" ? doc.status : null], null);
}
