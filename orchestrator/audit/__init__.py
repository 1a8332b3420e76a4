"""The audit: database, spool, farms and disk checked against each other."""
