"""Build the C extensions and programs; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = {
    "stillroom.kernels._digests": "src/stillroom/kernels/digests.c",
    "stillroom.kernels._indel": "src/stillroom/kernels/indel.c",
    "stillroom.kernels._grams": "src/stillroom/kernels/grams.c",
    "stillroom.kernels._lottery": "src/stillroom/kernels/lottery.c",
    "stillroom.kernels._minhash": "src/stillroom/kernels/minhash.c",
    "stillroom.kernels._vectors": "src/stillroom/kernels/vectors.c",
    "stillroom.models.local._engine": "src/stillroom/models/local/engine.c",
    "stillroom.sandbox._guard": "src/stillroom/sandbox/guard_module.c",
}
PROGRAMS = {
    "stillroom.sandbox.guard": "src/stillroom/sandbox/guard.c",
}


def extension(name: str, source: str) -> Extension:
    """Describe one extension; the headers beside its source belong to it."""
    folder = Path(source).parent
    return Extension(
        name,
        sources=[source],
        depends=[str(path) for path in sorted([*folder.glob("*.h"), *folder.glob("guard.c")])],
        # No fused multiply-add and no -march: the same input gives the same bytes everywhere.
        extra_compile_args=["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno"],
        extra_link_args=["-pthread"],
        libraries=["m"],
        py_limited_api=True,
    )


class Program(Extension):
    """A program that lies beside the modules; it has nothing to do with Python."""


class Build(build_ext):
    """Build programs too, by the compiler that builds extensions."""

    def get_ext_filename(self, fullname):
        """Name a program without the ending of an extension."""
        if any(fullname in (name, name.rpartition(".")[2]) for name in PROGRAMS):
            return str(Path(*fullname.split(".")))
        return super().get_ext_filename(fullname)

    def build_extension(self, ext):
        """Compile and link."""
        if not isinstance(ext, Program):
            super().build_extension(ext)
            return
        target = Path(self.get_ext_fullpath(ext.name))
        objects = self.compiler.compile(
            ext.sources, output_dir=self.build_temp, extra_postargs=ext.extra_compile_args
        )
        self.compiler.link_executable(objects, target.name, output_dir=str(target.parent))


setup(
    ext_modules=[
        *(extension(name, source) for name, source in SOURCES.items()),
        *(
            Program(name, sources=[source], extra_compile_args=["-std=gnu11", "-O2", "-Wall"])
            for name, source in PROGRAMS.items()
        ),
    ],
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
