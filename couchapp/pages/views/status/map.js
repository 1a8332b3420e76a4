// How many documents have which status; by run and file below that.
function map(doc) {
  if (doc.type !== "@type@") return;
  emit([typeof doc.status === "string" ? doc.status : null, doc.run_name, doc.file_number], 1);
}
