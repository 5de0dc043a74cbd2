"""Pixel-pair machinery shared by PSA and IRN: pairs, labels, networks, random walk."""
