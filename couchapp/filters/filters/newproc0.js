// Documents that have not begun the chain.
function filter(doc, req) {
  return doc.type === "@type@" && !doc._deleted && (doc.status === "closed" || doc.status === "good")
    && doc.proc0 === undefined;
}
