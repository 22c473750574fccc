"""The command line and what it does: one typed function per command is its options, its Python call and its help."""
