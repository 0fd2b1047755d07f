"""Ways to get an image list: folder, CSV, standard input, pairs, selection."""
