"""Drawing: tables in, pictures out; no statistics are computed here."""
