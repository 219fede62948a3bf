"""Models behind one door: a batch of requests goes in, a stream of replies comes out."""
