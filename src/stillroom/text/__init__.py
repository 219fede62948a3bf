"""Pure functions on strings: normal forms, boxed answers, think tags."""
