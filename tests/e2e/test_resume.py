"""the same final weights, bit for bit: any thread count, any launch size, killed at random moments, built twice."""
import os
import random
import signal
import subprocess
import time

from support import MICA, SMALL, Case, main

KILLS = 5


class Resume(Case):
    def setUp(self):
        super().setUp()
        self.config = self.write("small.yaml", SMALL)
        self.settings = ["steps=150", "optimizer.clip=1.0"]

    def train(self, run, *overrides):
        self.mica("train", self.config, "--out", self.path(run), "--quiet", *self.settings, *overrides)
        return self.bytes(run, "last.safetensors")

    def test_threads_and_launches(self):
        one = self.train("one", "threads=1")
        self.assertEqual(one, self.train("two", "threads=2"))
        self.assertEqual(one, self.train("again", "threads=2"))
        self.assertEqual(one, self.train("launch", "threads=2", "launch=1"))

    def test_killed_and_resumed(self):
        started = time.monotonic()
        straight = self.train("straight")
        whole = time.monotonic() - started
        seed = int(os.environ.get("MICA_TEST_SEED", "1"))
        rng = random.Random(seed)
        for kill in range(KILLS):
            run = f"killed{kill}"
            process = subprocess.Popen([MICA, "train", self.config, "--out", self.path(run), "--quiet", *self.settings],
                                       stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.02, 1.0) * whole)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if not os.path.exists(self.path(run, "config.yaml")):
                continue  # killed before anything was written: nothing to resume
            self.mica("train", "--resume", self.path(run), "--quiet")
            self.assertEqual(straight, self.bytes(run, "last.safetensors"), f"kill {kill}, seed {seed}")
            steps = [line["step"] for line in self.metrics(run)]
            self.assertEqual(steps, list(range(1, 151)), "metrics have every step once")

    def long_run(self, run):
        """a run that goes on until it is stopped; its first step is done"""
        process = subprocess.Popen([MICA, "train", self.config, "--out", run, "--quiet", "steps=100000"],
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not os.path.exists(os.path.join(run, "metrics.jsonl")):
            time.sleep(0.02)
        return process

    def test_two_in_one_folder(self):
        """the second is refused and touches nothing; after SIGKILL of the first the folder is free"""
        run = self.path("shared")
        process = self.long_run(run)
        for arguments in ([self.config, "--out", run], ["--resume", run]):
            _, err = self.mica("train", *arguments, "--quiet", "steps=100000", code=3)
            for words in (run, "another process is training", "--resume"):
                self.assertIn(words, err)
        self.assertIsNone(process.poll(), "the first trains on")
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, err = self.mica("train", self.config, "--out", run, "--quiet", code=3)
        self.assertIn("already holds a run", err)
        process = subprocess.Popen([MICA, "train", "--resume", run, "--quiet"], stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 9, err)
        steps = [line["step"] for line in self.metrics("shared")]
        self.assertEqual(steps, list(range(1, len(steps) + 1)), "metrics have every step once")

    def test_started_at_once(self):
        """of several that start together in a new folder one trains"""
        run = self.path("race")
        processes = [subprocess.Popen([MICA, "train", self.config, "--out", run, "--quiet", *self.settings],
                                      stderr=subprocess.PIPE, text=True) for _ in range(4)]
        errors = [p.communicate(timeout=300)[1] for p in processes]
        self.assertEqual(sorted(p.returncode for p in processes), [0, 3, 3, 3], errors)
        self.assertEqual(self.train("alone"), self.bytes("race", "last.safetensors"))

    def test_interrupt_saves(self):
        run = self.path("stopped")
        process = self.long_run(run)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 9)
        self.assertIn("mica train --resume", err)
        self.assertTrue(os.path.exists(os.path.join(run, "last.safetensors")))

    def test_finished_run_is_a_success_at_once(self):
        self.train("done")
        before = self.bytes("done", "last.safetensors")
        self.mica("train", "--resume", self.path("done"), "--quiet")
        self.assertEqual(before, self.bytes("done", "last.safetensors"))

    def test_run_folder_is_not_overwritten(self):
        self.train("done")
        _, err = self.mica("train", self.config, "--out", self.path("done"), "--quiet", code=3)
        self.assertIn("--resume", err)

    def test_damaged_checkpoint_is_named(self):
        self.train("done", "steps=20")
        folder = self.path("done", "checkpoints")
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            with open(path, "r+b") as f:
                data = bytearray(f.read())
                data[-5] ^= 1  # one bit
                f.seek(0)
                f.write(data)
        os.remove(self.path("done", "last.safetensors"))
        _, err = self.mica("train", "--resume", self.path("done"), "--quiet", code=4)
        self.assertIn("hash", err)
        self.assertIn("checkpoints", err)


if __name__ == "__main__":
    main()
