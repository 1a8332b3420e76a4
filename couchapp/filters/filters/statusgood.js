// Documents that wait for their next step, or are through the chain.
function filter(doc, req) {
  return doc.type === "@type@" && !doc._deleted && doc.status === "good";
}
