"""What to do next: the backlog, claims, attempts, retries, reconciliation. Decisions apart from the outside world."""
