"""Networks: torch only, one readable file a family, NamedTuple outputs, no reading or writing of files."""
