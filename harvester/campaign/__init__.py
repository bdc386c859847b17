"""One campaign, to its finished file: harvested, topped up, reconciled, published."""
