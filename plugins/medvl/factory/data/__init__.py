"""The data sets that a recipe names: their entries, records and tokenised rows, and what is wrong with them."""
