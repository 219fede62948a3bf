"""Several chains of questions become one."""
