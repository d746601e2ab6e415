"""Privacy: what was done (events, in a ledger), what it costs (the accountant), and how a release is made."""
