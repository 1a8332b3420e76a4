// PouchDB's server: node server.js FOLDER, from the folder that install.sh has made. Its databases are in FOLDER, its port is a
// free one of the loopback address and is printed; the admin's password is read from the environment variable PASSWORD.
"use strict";

const path = require("path");
const found = (name) => require(require.resolve(name, { paths: [process.cwd()] }));
const express = found("express");
const PouchDB = found("pouchdb").defaults({ prefix: path.resolve(process.argv[2]) + path.sep });
const pouch = found("express-pouchdb")(PouchDB, { inMemoryConfig: true, logPath: path.resolve(process.argv[2], "log.txt"), overrideMode: { exclude: ["routes/fauxton"] } });

pouch.couchConfig.set("admins", "admin", process.env.PASSWORD, () => {
  const app = express();
  app.use("/", pouch);
  const listening = app.listen(Number(process.argv[3] || 0), "127.0.0.1", () => console.log(`port ${listening.address().port}`));
});
