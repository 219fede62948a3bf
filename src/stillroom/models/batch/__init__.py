"""Provider batch APIs: half the price, and an answer within a day."""
