"""real data: one language is one task."""
import json
import os
import sys

from support import SOURCE, Case, data_folder, main

if not data_folder():
    print("skipped: no real data; set MICA_DATA to the folder with languages/udhr.txt")
    sys.exit(77)


class Languages(Case):
    def test_udhr_trains_and_evaluates_by_index(self):
        recipe = os.path.join(SOURCE, "docs/recipes/udhr.yaml")
        env = {"MICA_DATA": data_folder()}
        run = self.path("run")
        self.mica("train", recipe, "--out", run, "--quiet", "steps=3", "batch=4", "grain=4", "family.length=64",
                  "model.layers=1", "model.width=32", "model.heads=2", env=env)
        result = self.json("eval", run, env=env)
        with open(os.path.join(data_folder(), "languages/udhr.json")) as f:
            index = json.load(f)
        self.assertEqual(result["tasks"], sum(1 for row in index if row["split"] == "test"))
        self.assertEqual(len(result["loss_by_position"]), 64)
        # an untrained byte model is near 8 bits
        self.assertLess(abs(result["bits"] - 8), 1.5)
        text = self.write("letter.txt", "a letter of one's own, as bytes. " * 4)
        predicted = self.json("predict", run, "--in", text, "--out", self.path("out.csv"), env=env)
        self.assertEqual(len(predicted["bits_by_position"]), 64)


if __name__ == "__main__":
    main()
