"""The life of a run and the rules of the journal, in every order of steps and with every fault, against models."""
