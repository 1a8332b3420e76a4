// The files of a run, in order.
function map(doc) {
  if (doc.type !== "@type@") return;
  emit([doc.run_name, doc.file_number], {status: doc.status});
}
