// The attempts that did not succeed, by document, step and number.
function map(doc) {
  if (doc.type !== "attempt") return;
  emit([doc.document, doc.step, doc.number], {
    state: doc.state,
    error_class: doc.error_class,
    reason: typeof doc.reason === "string" ? doc.reason.slice(0, 200).replace(/[\ud800-\udbff]$/, "") : null
  });
}
