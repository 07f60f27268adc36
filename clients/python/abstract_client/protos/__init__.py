"""The modules that generate.py makes of proto/mechinterp/v1."""
