"""How fast the ways to train are, side by side: `make bench`. Nothing else imports it."""
