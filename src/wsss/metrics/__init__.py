"""How good a mask is: confusion counts and what follows from them."""
