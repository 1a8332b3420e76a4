// Runs: how many files, how many bytes.
function map(doc) {
  if (doc.type !== "@type@") return;
  // _stats takes nothing but numbers, and one odd value would spoil the whole view
  emit([doc.run_name, doc.file_number], typeof doc.size === "number" && isFinite(doc.size) ? doc.size : 0);
}
