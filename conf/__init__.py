"""What to export: YAML only. A package, so that the files are installed with the code that reads them."""
