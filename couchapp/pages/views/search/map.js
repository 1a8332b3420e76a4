// Words by which a document is found, in lower case: its id, run, file's name, and the parts of these. At most 12.
function map(doc) {
  var texts, words = [], seen = {}, i, j, text, parts;

  function add(word) {
    word = word.slice(0, 100).replace(/[\ud800-\udbff]$/, "");
    if (word === "" || words.length >= 12 || seen["=" + word]) return;
    seen["=" + word] = true;
    words.push(word);
  }

  if (doc.type !== "@type@") return;
  texts = [doc._id, doc.run_name, typeof doc.file === "string" ? doc.file.slice(doc.file.lastIndexOf("/") + 1) : ""];
  for (i = 0; i < texts.length; i++) {
    if (typeof texts[i] === "string") add(texts[i].toLowerCase());
  }
  for (i = 0; i < texts.length; i++) {
    text = typeof texts[i] === "string" ? texts[i].toLowerCase() : "";
    parts = text.split(/[^a-z0-9\u0080-\uffff]+/); // beyond ASCII all counts as a letter: ES5 knows no better
    for (j = 0; j < parts.length; j++) add(parts[j]);
  }
  for (i = 0; i < words.length; i++) emit([words[i]], null);
}
