"""Build the C decoder of the ``local`` engine; everything else is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "stillroom.models.local._engine",
            sources=["src/stillroom/models/local/engine.c"],
            depends=["src/stillroom/models/local/kernels.h"],
            # No fused multiply-add and no -march: a draw has the same text on every machine.
            extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno"],
            extra_link_args=["-pthread"],
            libraries=["m"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
