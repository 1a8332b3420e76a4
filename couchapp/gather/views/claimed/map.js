// Members by the document that has them, so that what a crash left half done is found.
function map(doc) {
  var gather = "@gather@", entry;
  if (doc.type !== "@type@" || gather.step === null) return;
  entry = doc[gather.step];
  if (entry && entry.state === "queued" && typeof entry.gathered === "string") emit(entry.gathered, null);
}
