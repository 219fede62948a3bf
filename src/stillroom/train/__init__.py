"""Students: the plain training loop, the small model that it trains, and a sampler.

The modules here import torch, which is an optional extra; nothing outside may import them at
module level.
"""
