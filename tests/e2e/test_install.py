"""from an install prefix: the C example by pkg-config and by CMake, and the plugin example by configuration alone."""
import os
import subprocess

from support import SOURCE, Case, main

CMAKE = """cmake_minimum_required(VERSION 3.25)
project(consumer C)
find_package(mica REQUIRED)
add_executable(consumer train.c)
target_link_libraries(consumer PRIVATE mica::mica)
"""


def read(path):
    with open(path) as f:
        return f.read()


class Install(Case):
    def setUp(self):
        super().setUp()
        self.prefix = self.path("prefix")
        subprocess.run(["cmake", "--install", os.environ["MICA_BUILD"], "--prefix", self.prefix], check=True,
                       stdout=subprocess.DEVNULL)
        lib = next(os.path.join(root) for root, _, files in os.walk(self.prefix) if "libmica.so" in files)
        self.env = {**os.environ, "PKG_CONFIG_PATH": os.path.join(lib, "pkgconfig"), "LD_LIBRARY_PATH": lib}
        self.program = os.path.join(self.prefix, "bin/mica")
        self.examples = os.path.join(SOURCE, "docs/examples")

    def flags(self):
        out = subprocess.run(["pkg-config", "--cflags", "--libs", "mica"], env=self.env, capture_output=True, text=True,
                             check=True)
        return out.stdout.split()

    def test_example_by_pkg_config(self):
        source = os.path.join(self.examples, "train.c")
        self.assertLess(len(read(source).splitlines()), 60)
        sanitize = os.environ.get("MICA_SANITIZE")  # an instrumented library wants its runtime in the program
        more = [f"-fsanitize={sanitize}"] if sanitize else []
        subprocess.run(["cc", "-std=c99", "-Wall", "-Werror", source, "-o", self.path("train")] + more + self.flags(),
                       check=True, env=self.env)
        recipe = os.path.join(SOURCE, "docs/recipes/linear_regression.yaml")
        out = subprocess.run([self.path("train"), recipe, self.path("run"), "steps=4", "batch=16", "grain=16", "eval_tasks=32"],
                             env=self.env, check=True, capture_output=True, text=True).stdout
        self.assertIn("exact predictor", out)

    def test_example_by_cmake(self):
        os.mkdir(self.path("consumer"))
        self.write("consumer/CMakeLists.txt", CMAKE)
        self.write("consumer/train.c", read(os.path.join(self.examples, "train.c")))
        for command in (["cmake", "-S", self.path("consumer"), "-B", self.path("b"), f"-DCMAKE_PREFIX_PATH={self.prefix}"],
                        ["cmake", "--build", self.path("b")]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def test_plugin_trains_by_config_alone(self):
        source = os.path.join(self.examples, "decay.c")
        self.assertLess(len(read(source).splitlines()), 150)
        flags = [f for f in self.flags() if f != "-lmica"]
        subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", "-shared", "-fPIC", source, "-lm", "-o", self.path("decay.so")] +
                       flags, check=True, env=self.env)
        self.write("decay.yaml", read(os.path.join(self.examples, "decay.yaml")))
        for name, threads in (("a", 1), ("b", 2)):
            subprocess.run([self.program, "train", self.path("decay.yaml"), "--out", self.path(name), "--quiet",
                            f"threads={threads}"], check=True, env=self.env)
        self.assertEqual(self.bytes("a", "last.safetensors"), self.bytes("b", "last.safetensors"))
        lines = [line["loss"] for line in self.metrics("a")]
        self.assertLess(sum(lines[-20:]), 0.5 * sum(lines[:20]))


if __name__ == "__main__":
    main()
