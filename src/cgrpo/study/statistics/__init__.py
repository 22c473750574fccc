"""What the answers say, and how sure that is."""
