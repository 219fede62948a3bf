"""Where results live: artifacts on disk, and tables made of chains of them."""
