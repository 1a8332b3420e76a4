// The documents that a gather has made. Key its status; value how many members it has, and of which they are.
function map(doc) {
  var gather = "@gather@";
  if (doc.type !== gather.type || doc.gather !== gather.name || (doc.run_name && typeof doc.run_name === "object")) return;
  emit([doc.period || "", doc.run_name === undefined ? null : doc.run_name],
    {members: doc.members ? doc.members.length : 0, status: doc.status, of: doc.of});
}
