// The guard: only legal transitions of status, by known users. Runs at every write, so it stays small.
// The table is generated from orchestrator/transitions.py: "before>after" to how the step's number may move.
function validate(doc, old, user, security) {
  var roles = user.roles || [], admin = roles.indexOf("_admin") >= 0, name, from, to, move, table, possible, forced;

  // A status taken apart: [kind, step's number or -1], or null if it is none. Older databases write "proc1 failed".
  function parse(status) {
    var match;
    if (status === "open" || status === "closed" || status === "good" || status === "bad" || status === "failed") {
      return [status, -1];
    }
    match = typeof status === "string" && /^proc ?(\d+) (queued|in progress|failed)$/.exec(status);
    return match ? [match[2], match[2] === "failed" ? -1 : Number(match[1])] : null;
  }

  if (doc._id.indexOf("_design/") === 0) return; // the server itself lets only admins write these
  if (!user.name && !admin) throw {unauthorized: "log in to write: anonymous users may not"};
  if (doc._deleted) {
    if (admin || roles.indexOf("admin") >= 0 || roles.indexOf("operator") >= 0) return;
    throw {forbidden: "only an admin or an operator may delete: mark the document bad instead"};
  }
  if (old && old._deleted) old = null;
  if (typeof doc.type !== "string" || doc.type === "") throw {forbidden: "a document needs a type: a text in 'type'"};
  if (doc.type !== "@type@") {
    if (old && old.type === "@type@") throw {forbidden: "the type of a data document cannot change"};
    return;
  }
  to = parse(doc.status);
  if (!to) throw {forbidden: "the status " + JSON.stringify(doc.status) + " is none that is known"};
  for (name in doc) {
    if (/^proc\d+$/.test(name) && (!doc[name] || typeof doc[name] !== "object" || Array.isArray(doc[name]))) {
      throw {forbidden: name + " must be an object"};
    }
  }
  if (old && old.type === doc.type && old.status === doc.status) return;
  from = (old && old.type === doc.type && parse(old.status)) || ["new", -1];
  table = "@transitions@";
  move = table[from[0] + ">" + to[0]];
  if (move !== undefined) {
    if (from[1] < 0 || to[1] < 0 || move.indexOf("any") >= 0) return;
    if (to[1] === from[1] && move.indexOf("same") >= 0) return;
    if (to[1] > from[1] && move.indexOf("later") >= 0) return;
  }
  forced = doc.forced;
  if (admin && forced && forced.by && forced.why && forced.at
      && !(old && old.forced && old.forced.at === forced.at)) return; // each use of force says why anew
  possible = [];
  for (name in table) {
    if (name.indexOf(from[0] + ">") === 0) possible.push(name.slice(from[0].length + 1));
  }
  throw {forbidden: "the status cannot go from '" + (from[0] === "new" ? "new" : old.status) + "' to '" + doc.status
    + "'; from here it can go to: " + possible.sort().join(", ")};
}
