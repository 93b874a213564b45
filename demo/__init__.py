"""The demo museum and its tiny zoo: the default that needs nothing else."""
