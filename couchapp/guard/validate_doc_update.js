// The guard: who may write what. Runs at every write of every document, so it stays small.
// Its tables come from orchestrator/roles.py, orchestrator/transitions.py and the chain.
function validate(doc, old, user, security) {
  // The sites of each step, by the document's type and, of data documents, by lane. The larger tables are texts: they
  // cost nothing until they are asked.
  var branches = "@branches@", moves = "@moves@";
  var roles = user.roles || [], has = {}, i, admin, person, site, carries, elsewhere, branch;
  for (i = 0; i < roles.length; i++) has[roles[i]] = true;
  admin = has._admin === true || has.admin === true;
  person = has.operator === true;
  site = roles.join(" ").indexOf("site:") >= 0;

  function no(reason) { throw {forbidden: reason}; }

  // A status taken apart: [kind, step's number or -1], or null if it is none. Older databases write "proc1 failed".
  function parse(status) {
    var plain = "@plain@", match;
    if (typeof status !== "string" || status.indexOf("|") >= 0) return null;
    if (plain.indexOf("|" + status + "|") >= 0) return [status, -1];
    match = /^proc ?(\d{1,6}) ([a-z ]+)$/.exec(status);
    if (!match || "@numbered@".indexOf("|" + match[2] + "|") < 0) return null;
    return [match[2], plain.indexOf("|" + match[2] + "|") >= 0 ? -1 : Number(match[1])];
  }

  function same(a, b) { // as JSON; the order of an object's members does not matter
    var name;
    if (a === b) return true;
    if (!a || !b || typeof a !== "object" || typeof b !== "object" || Array.isArray(a) !== Array.isArray(b)) return false;
    for (name in a) if (a[name] !== b[name] && !same(a[name], b[name])) return false;
    for (name in b) if (a[name] === undefined) return false;
    return true;
  }

  // Why a step is none of this account's; "" if it is.
  function foreign(name, owners) {
    var owner = owners[Number(name.slice(4))];
    return has["site:" + owner] === true ? "" : name + (owner === undefined ? " belongs to no step that the chain has"
      : " belongs to the site " + owner + ": this account does not have the role site:" + owner);
  }

  function mine(by) { // a signature is the account's name, perhaps with a machine behind it: ann, ann@daq1
    return by === user.name || String(by).indexOf(user.name + '@') === 0;
  }

  // Whether the table has this move for "site" or "person".
  function moved(from, to, who) {
    var head = "|" + from[0] + ">" + to[0] + ":" + who + " ", at = moves.indexOf(head), step;
    if (at < 0) return false;
    if (from[1] < 0 || to[1] < 0) return true;
    step = moves.slice(at + head.length, moves.indexOf("|", at + 1));
    return step.indexOf("any") >= 0 || (to[1] === from[1] && step.indexOf("same") >= 0)
      || (to[1] > from[1] && step.indexOf("later") >= 0);
  }

  function impossible(doc, old, from) {
    var possible = [], rows = moves.split("|"), j, kind;
    for (j = 0; j < rows.length; j++) {
      kind = rows[j].slice(from[0].length + 1).split(":")[0];
      if (rows[j].indexOf(from[0] + ">") === 0 && possible.indexOf(kind) < 0) possible.push(kind);
    }
    return "the status cannot go from '" + (from[0] === "new" ? "new" : old.status) + "' to '" + doc.status
      + "'; from here it can go to: " + possible.sort().join(", ");
  }

  // Why a daemon of a site may not write this; "" if it may.
  function bySite(doc, old, procs, owners, from, to) {
    var name, keys = "@people@", j, why = "", regather = false;
    if (to) {
      // Who gathers puts a document back to before its first step when its members have changed.
      regather = branch.gather && to[0] === "closed" && (from[0] === "good" || from[0] === "failed") && !procs.length
        && has["site:" + doc.site] === true;
      if (!regather && !moved(from, to, "site")) {
        return "from '" + old.status + "' to '" + doc.status + "' is for people: operator or admin";
      }
      if (from[1] >= 0) why = foreign("proc" + from[1], owners);
      if (!why && to[1] >= 0) why = foreign("proc" + to[1], owners);
      if (!why && from[1] < 0 && to[1] < 0 && has["site:" + doc.site] !== true) {
        why = "the file is at the site " + JSON.stringify(doc.site) + ": this account does not have its role";
      }
      if (why) return why;
    }
    for (j = 0; j < procs.length; j++) {
      why = foreign(procs[j], owners);
      if (why && !same(doc[procs[j]], old ? old[procs[j]] : undefined)) return why;
    }
    if (!old) return "";
    for (name in old) {
      if (!regather && name.charCodeAt(0) === 112 && doc[name] === undefined && /^proc\d+$/.test(name)
          && (why = foreign(name, owners))) return why;
    }
    for (j = 0; j < keys.length; j++) {
      if (doc[keys[j]] !== old[keys[j]] && !same(doc[keys[j]], old[keys[j]])) {
        return "'" + keys[j] + "' is for people: operator or admin";
      }
    }
    return "";
  }

  // Whether a person's word, signed and with a reason, makes of a step's entry what the table has, and nothing else of it.
  function worded(now, was) {
    var words = "@words@", key = was && words[was.state + ">" + now.state], word = key && now[key], name;
    if (!word || was[key] !== undefined || !mine(word.by) || !word.reason || !word.at) return false;
    for (name in now) if (name !== "state" && name !== key && !same(now[name], was[name])) return false;
    for (name in was) if (now[name] === undefined) return false;
    return true;
  }

  // Why an operator may not write it; "" if he may.
  function byPerson(doc, old, procs, from, to) {
    var j, name;
    if (!old) return "files are registered by a registrar, with the role of its site";
    if (to && !moved(from, to, "person")) {
      return "from '" + old.status + "' to '" + doc.status + "' is for the daemons of a step's site";
    }
    if (!same(doc.forced, old.forced)) return "'forced' is for admins";
    if (old.operation && !doc.operation) return "'operation' says who changed it last: it cannot be taken out";
    if (doc.operation && !same(doc.operation, old.operation) && !mine(doc.operation.by)) {
      return "'operation' says it is by " + JSON.stringify(doc.operation.by) + ": sign it with your own name, " + user.name;
    }
    for (j = 0; j < procs.length; j++) {
      name = procs[j];
      if ((doc[name].state === "done" || doc[name].state === "refused") && !same(doc[name], old[name])
          && !worded(doc[name], old[name])) {
        return name + ": a person cannot say that a step is done, nor change its result";
      }
    }
    return "";
  }

  function kinds() { return "@types@"; }

  // Whether something in it carries another's name that did not carry it before. Of a list the places do not matter.
  function forged(now, was) {
    var name, j;
    if (!now || typeof now !== "object" || same(now, was)) return false;
    if (Array.isArray(was)) for (j = 0; j < was.length; j++) if (same(now, was[j])) return false;
    if (now.by !== undefined && !mine(now.by)) return true;
    for (name in now) {
      if (forged(now[name], Array.isArray(now) ? was : was && typeof was === "object" ? was[name] : undefined)) return true;
    }
    return false;
  }

  // Why a person may not write this record; "" if he may.
  function unsigned(act, type, one) {
    var by = type === "past" ? (one.operation || {}).by : one.by, j;
    var fixed = type === "past" ? ["operation", "document"] : ["by", "what", "at", "reason"];
    if (type === "control") return forged(one, old) ? "what you change there is signed by you, " + user.name : "";
    if (act === "create") {
      if (type === "attempt") return "";
      return mine(by) ? "" : "it is not signed by you: 'by' must be " + user.name;
    }
    if (act === "delete") return "";
    // One person's record another may end, and change nothing else of it.
    for (j = 0; j < fixed.length; j++) {
      if (!same(one[fixed[j]], old[fixed[j]])) return "'" + fixed[j] + "' of a record cannot change";
    }
    if (type === "past" && !mine(by) && !same(one.entries, old.entries)) return "'entries' is " + by + "'s record";
    return "";
  }

  // Documents of ours that have no chain.
  function other(act, type, one) {
    var types = kinds(), rule = types.hasOwnProperty(type) ? types[type][act] : [], why, ended;
    // Names tell types apart: no record takes the name of a file, nor one record that of another.
    if (act === "create" && types.hasOwnProperty(type) && one._id.indexOf(type + ":") !== 0) {
      no("the id of a document of type '" + type + "' begins with '" + type + ":'");
    }
    // Of attempts only the end that was not true goes again: a loss by its site, a person's word by a person.
    ended = act !== "delete" || type !== "attempt" ? "" : String(one.state);
    if (person && rule.indexOf("person") >= 0 && (!ended || ended === "called off")) {
      if ((why = unsigned(act, type, one))) no(why);
      return;
    }
    if (site && rule.indexOf("site") >= 0 && (!ended || ended === "lost")) {
      why = /^proc\d+$/.test(one.step) && one.site === undefined ? foreign(one.step, branches["@type@"].sites)
        : has["site:" + one.site] === true ? "" : "it names no site of this account: the role site:" + one.site;
      if (!why) return;
      no(why);
    }
    no("type " + JSON.stringify(type) + ": to " + act + " such a document is for "
      + rule.concat(["admin"]).join(" or ").replace("person", "operator"));
  }

  function keep(names) {
    var j, was;
    for (j = 0; j < names.length; j++) {
      was = old[names[j]];
      if (was !== undefined && was !== null && !same(was, doc[names[j]])) {
        no("'" + names[j] + "' says which file the document is about: it cannot change");
      }
    }
  }

  // A document, or what a lane knows of it. `owners`: the site of each step.
  function judge(doc, old, owners, lane) {
    var procs = [], to = parse(doc.status), from = (old && parse(old.status)) || ["new", -1], forced = doc.forced, name, why;
    if (!to) no("the status " + JSON.stringify(doc.status) + " is none that is known");
    for (name in doc) {
      if (name.charCodeAt(0) === 112 && /^proc\d+$/.test(name)) {
        if (!doc[name] || typeof doc[name] !== "object" || Array.isArray(doc[name])) no(name + " must be an object");
        procs.push(name);
      }
    }
    if ((admin || carries) && forced && forced.by && forced.why && forced.at
        && !(old && old.forced && old.forced.at === forced.at)) return; // each use of force says why anew
    if (old && !lane) {
      keep("@identity@");
      if (from[0] !== "open" && from[0] !== "new") keep("@content@");
    }
    if (carries) return;
    if (old && old.status === doc.status) to = null; // no transition
    if (to && !moved(from, to, "site") && !moved(from, to, "person")) no(impossible(doc, old, from));
    if (admin || (site && !(why = bySite(doc, old, procs, owners, from, to)))
        || (person && !(why = byPerson(doc, old, procs, from, to)))) return;
    no((why && lane ? "lane " + lane + ": " : "")
      + (why || "this account may read only: writing needs a role of a site, operator or admin"));
  }

  // What a lane knows of a data document, under plain names. Before its first step it is closed.
  function part(doc, lane) {
    var found = {status: "closed"}, head = lane + "_", name;
    for (name in doc) if (name.indexOf(head) === 0) found[name.slice(head.length)] = doc[name];
    found.site = doc.site;
    return found;
  }

  if (doc._id.indexOf("_design/") === 0) return; // the server itself lets only admins write these
  if (!user.name && has._admin !== true) throw {unauthorized: "log in to write: anonymous users may not"};
  // A revision that is made here names the one that it follows; one that was made elsewhere has a name of its own.
  elsewhere = doc._rev !== undefined && !(old && old._rev === doc._rev);
  carries = has.replicator === true || (elsewhere && has._admin === true);
  if (elsewhere && !carries) no("revisions made elsewhere (new_edits=false) are for the role replicator");
  if (old && old._deleted) old = null;
  if (doc._deleted) {
    if (admin || carries) return;
    if (!old || branches.hasOwnProperty(old.type)) no("only an admin may delete: mark the document bad instead");
    return other("delete", old.type, old);
  }
  if (typeof doc.type !== "string" || doc.type === "") no("a document needs a type: a text in 'type'");
  if (old && old.type !== undefined && old.type !== doc.type) no("the type of a document cannot change");
  if (!branches.hasOwnProperty(doc.type)) {
    if (!admin && !carries) other(old ? "change" : "create", doc.type, doc);
    return;
  }
  branch = branches[doc.type];
  if (!old && !admin && !carries && doc._id.indexOf(":") > 0 && kinds().hasOwnProperty(doc._id.split(":")[0])) {
    no("an id that begins with '" + doc._id.split(":")[0] + ":' is for documents of that type");
  }
  judge(doc, old, branch.sites, "");
  for (i in branch.lanes) judge(part(doc, i), old && part(old, i), branch.lanes[i], i);
}
