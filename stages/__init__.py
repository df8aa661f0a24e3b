"""What is run: `python -m stages.<name>`. Each reads params, calls the library, writes its outputs whole."""
