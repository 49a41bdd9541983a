"""Claims, one file a table: short pure functions of cells that see the survey's, the source's or our numbers alike."""
