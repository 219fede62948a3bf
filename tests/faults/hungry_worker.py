"""A worker that takes as many MiB as it is told and gives the number back."""

import sys

from stillroom.verifiers.pool import serve


def take(mebibytes):
    return len(bytearray(mebibytes << 20)) >> 20


if __name__ == "__main__":
    serve(take, float(sys.argv[1]), int(sys.argv[2]))
