// Members by the document that they went into, as long as they are as they were then: one that is reset is gone from
// here, so that what was made of it before is seen to be old.
function map(doc) {
  var gather = "@gather@", entry;
  if (doc.type !== "@type@" || gather.step === null) return;
  entry = doc[gather.step];
  if (!entry || typeof entry !== "object") return;
  if (entry.state === "queued" && typeof entry.gathered === "string") emit(entry.gathered, null);
  else if (entry.state === "done" && entry.result && typeof entry.result.gathered === "string") emit(entry.result.gathered, null);
}
