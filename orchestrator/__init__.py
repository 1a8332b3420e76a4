"""The framework: documents, chains, pollers, the database. It knows no experiment, no raw format, no detector."""
