// Documents on hold, with who put them there, and why. Key [since when, run, file number].
function map(doc) {
  var hold = doc.hold;
  if (doc.type !== "@type@" || hold === undefined || hold === null) return;
  if (typeof hold !== "object") hold = {};
  emit([typeof hold.at === "string" ? hold.at : null, doc.run_name, doc.file_number], {
    by: typeof hold.by === "string" ? hold.by : null,
    operation: typeof hold.operation === "string" ? hold.operation : null,
    reason: typeof hold.reason === "string" ? hold.reason.slice(0, 200).replace(/[\ud800-\udbff]$/, "") : null,
    status: typeof doc.status === "string" ? doc.status : null
  });
}
