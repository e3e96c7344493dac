"""The scenarios, a module for each question; `GROUPS` in `catalogue` has them all."""
