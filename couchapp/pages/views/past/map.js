// What operations took out of documents, by document and time.
function map(doc) {
  if (doc.type !== "past") return;
  emit([doc.document, doc.at], {operation: doc.operation && doc.operation.id, what: doc.operation && doc.operation.what});
}
