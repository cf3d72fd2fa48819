"""the installed library exports the listed symbols and no other; headers compile alone as C99 and C++."""
import glob
import os
import subprocess
import unittest

from support import SOURCE, main

LIST = os.path.join(SOURCE, "tests/e2e/exported_symbols.txt")


class Symbols(unittest.TestCase):
    def test_exported_symbols(self):
        out = subprocess.run(["nm", "-D", "--defined-only", os.environ["MICA_LIB"]], capture_output=True, text=True,
                             check=True).stdout
        # coverage and sanitizer builds add their own
        names = sorted(line.split()[-1] for line in out.splitlines() if line.split()[-1].startswith("mica"))
        if os.environ.get("MICA_WRITE_SYMBOLS"):
            with open(LIST, "w") as f:
                f.write("\n".join(names) + "\n")
        with open(LIST) as f:
            listed = f.read().split()
        self.assertEqual(names, listed,
                         "exported symbols changed; if it is meant, run this test with MICA_WRITE_SYMBOLS=1 and say so in CHANGELOG.md")

    def test_headers_alone(self):
        headers = glob.glob(os.path.join(SOURCE, "include/mica/*.h")) + [
            h for h in glob.glob(os.path.join(SOURCE, "kernels/*/*.h"))
            if "/common/" not in h and not h.endswith("_internal.h")]
        self.assertGreater(len(headers), 8)
        for header in headers:
            for compiler, language, standard in (("cc", "c", "-std=c99"), ("c++", "c++", "-std=c++11")):
                text = f'#include "{header}"\nint mica_header_alone;\n'
                subprocess.run([compiler, standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-I",
                                os.path.join(SOURCE, "include"), "-x", language, "-fsyntax-only", "-"], input=text, text=True,
                               check=True)


if __name__ == "__main__":
    main()
