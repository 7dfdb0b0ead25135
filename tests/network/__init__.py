"""How connections are made, and what goes over them."""
