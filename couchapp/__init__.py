"""What CouchDB executes: design documents as files, one folder each."""
