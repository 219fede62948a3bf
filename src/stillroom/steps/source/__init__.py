"""Where questions come from: files, the hub, generators, and what the package ships."""
