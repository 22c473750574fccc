"""Pages that need nothing else: a run's report, and methods compared. A page is a list of sections."""
