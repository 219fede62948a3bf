"""Build the C extensions; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = {
    "stillroom.kernels._indel": "src/stillroom/kernels/indel.c",
    "stillroom.kernels._grams": "src/stillroom/kernels/grams.c",
    "stillroom.kernels._minhash": "src/stillroom/kernels/minhash.c",
    "stillroom.models.local._engine": "src/stillroom/models/local/engine.c",
}


def extension(name: str, source: str) -> Extension:
    """Describe one extension; the headers beside its source belong to it."""
    return Extension(
        name,
        sources=[source],
        depends=[str(header) for header in sorted(Path(source).parent.glob("*.h"))],
        # No fused multiply-add and no -march: the same input gives the same bytes everywhere.
        extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno"],
        extra_link_args=["-pthread"],
        libraries=["m"],
        py_limited_api=True,
    )


setup(
    ext_modules=[extension(name, source) for name, source in SOURCES.items()],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
