// Documents out of processing, with the reason that a person, a quality gate or the registrar gave.
function map(doc) {
  if (doc.type !== "@type@" || doc.status !== "bad") return;
  // A reason cut between the halves of one character would be no text.
  emit([doc.run_name, doc.file_number],
    {reason: typeof doc.reason === "string" ? doc.reason.slice(0, 200).replace(/[\ud800-\udbff]$/, "") : null});
}
