"""The command line `upsr`."""
