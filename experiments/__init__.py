"""What trains: one file a table, the few functions that tables share, and `models/`."""
