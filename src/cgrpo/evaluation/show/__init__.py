"""How numbers and pictures are shown, whatever page they stand on."""
