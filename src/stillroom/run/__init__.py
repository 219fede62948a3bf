"""Running steps: keys, the Runner that builds, the Planner that only says what would be built."""
