"""The rooms of the house: one package a step, in the order in which data passes through them."""
