"""Writes the corpus of malformed files beside this script: one folder a reader, and expect.tsv with, for each file, the
status and an extended regular expression that the message must match. Run it after changing a case; the files it makes
are committed. Seeds of well-formed files for the fuzzers go to ../fuzz/seeds."""
import json
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
SEEDS = os.path.join(HERE, "..", "fuzz", "seeds")
rows = []


def bad(folder, name, content, status, message):
    """message: what follows the file's name in the message"""
    path = os.path.join(HERE, folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(content.encode() if isinstance(content, str) else content)
    rows.append((f"{folder}/{name}", "MICA_ERR_" + status, name.replace(".", "\\.") + message))


def good(folder, name, content):
    path = os.path.join(SEEDS, folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(content.encode() if isinstance(content, str) else content)


# ---- configurations: a good one, spoiled in one place ----
GOOD = """\
family:
  name: linear_regression
  dim: 4
  points: 8
  noise: 0.5
model:
  name: transformer
  layers: 2
  heads: 2
  width: 32
loss: {name: mse}
optimizer: {name: adamw, lr: 1e-3}
steps: 20
batch: 16
grain: 16
seed: 1
threads: 1
device: cpu
"""


def config(name, old, new, message):
    assert old in GOOD, old
    bad("config", name + ".yaml", GOOD.replace(old, new, 1), "CONFIG", message)


config("unknown_key", "layers: 2", "layesr: 2", ":8:3: unknown key 'model.layesr'; did you mean 'layers'\\?")
config("unknown_top_key", "steps: 20", "stpes: 20", ":13:1: unknown key 'stpes'; did you mean 'steps'\\?")
config("unknown_section", "loss:", "losss:", ":11:1: unknown key 'losss'; did you mean 'loss'\\?")
config("unknown_family_key", "noise: 0.5", "nosie: 0.5", ":5:3: unknown key 'family.nosie'; did you mean 'noise'\\?")
config("text_for_integer", "layers: 2", "layers: many", ":8:11: model.layers: expected an integer.*got 'many'")
config("text_for_number", "noise: 0.5", "noise: loud", ":5:10: family.noise: expected a number.*got 'loud'")
config("fraction_for_integer", "steps: 20", "steps: 20.5", ":13:8: steps: expected an integer.*got '20.5'")
config("negative_steps", "steps: 20", "steps: -5", ":13:8: steps: expected an integer.*got '-5'")
config("zero_batch", "batch: 16", "batch: 0", ":14:8: batch: expected an integer.*got '0'")
config("huge_integer", "steps: 20", "steps: 123456789012345678901234567890", ":13:8: steps: expected an integer.*got '1234")
config("hexadecimal", "steps: 20", "steps: 0x14", ":13:8: steps: expected an integer.*got '0x14'")
config("nan", "noise: 0.5", "noise: .nan", ":5:10: family.noise: expected a number.*got '.nan'")
config("infinite", "noise: 0.5", "noise: 1e999", ":5:10: family.noise: expected a number.*got '1e999'")
config("quoted_integer", "steps: 20", 'steps: "20"', ":13:8: steps: expected an integer.*in quotes; remove the quotes")
config("list_for_integer", "steps: 20", "steps: [20]", ":13:8: steps: expected an integer.*got a list")
config("section_for_integer", "steps: 20", "steps: {a: 20}", ":13:8: steps: expected an integer.*got a section")
config("nothing_for_integer", "steps: 20", "steps:", ":13:7: steps: expected an integer.*got nothing")
config("value_for_section", "loss: {name: mse}", "loss: mse", ":11:7: loss: expected a section with keys, got a value")
config("list_for_section", "loss: {name: mse}", "loss: [mse]", ":11:7: loss: expected a section with keys, got a list")
config("missing_name", "  name: linear_regression\n", "", ":2:3: family.name: missing")
config("missing_section", GOOD[:GOOD.index("model:")], "", ":1:1: family: missing")
config("duplicate_key", "steps: 20\n", "steps: 20\nsteps: 30\n", ":14:1: duplicate key 'steps' \\(first on line 13\\)")
config("duplicate_nested", "  dim: 4\n", "  dim: 4\n  dim: 5\n", ":4:3: duplicate key 'dim' \\(first on line 3\\)")
config("bad_indent", "  dim: 4", "   dim: 4", ":3:.*YAML syntax")
config("tab_indent", "  dim: 4", "\tdim: 4", ":3:1: YAML syntax")
config("open_list", "loss: {name: mse}", "loss: {name: mse", ":12:.*YAML syntax")
config("open_quote", "name: mse", "name: \"mse", ":.*YAML syntax")
config("anchor", "steps: 20", "steps: &n 20", ":13:8: anchor '&n' is not supported")
config("alias", "steps: 20", "steps: *n", ":13:8: alias '\\*n' is not supported")
config("tag", "steps: 20", "steps: !!int 20", ":13:8: tag 'tag:yaml.org,2002:int' is not supported")
config("merge_key", "steps: 20", "<<: {steps: 20}", ":13:1: merge key '<<' is not supported")
config("dotted_key", "steps: 20", "model.layers: 3", ":13:1: key 'model.layers' has a point; write nested sections")
config("two_documents", "steps: 20", "---\nsteps: 20", ":13:1: a second document")
bad("config", "a_list.yaml", "- steps\n- 20\n", "CONFIG", ":1:1: expected 'key: value' lines, got a list")
bad("config", "a_word.yaml", "hello\n", "CONFIG", ":1:1: expected 'key: value' lines, got a single value")
bad("config", "binary.yaml", bytes(range(256)), "CONFIG", ":1:.*YAML syntax")
bad("config", "latin1.yaml", "family: {name: é}\n".encode("latin-1"), "CONFIG", ":.*YAML syntax: invalid.*UTF-8")
bad("config", "deep.yaml", "a: " + "[" * 40 + "]" * 40 + "\n", "CONFIG", ":1:.*nested too deep")
bad("config", "many.yaml", "".join(f"k{i}: 0\n" for i in range(2001)), "CONFIG", ": more than 2000 values")
good("config", "good.yaml", GOOD)
good("config", "override.yaml", "#=model.layers=3\n" + GOOD + "plugins: [a, 'b c', \"d\\n\\x41\\u2028\"]\nnote: |\n  two\n  lines\n")


# ---- safetensors ----
def tensors(header, data=b"", length=None):
    text = header if isinstance(header, (bytes, str)) else json.dumps(header)
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def st(name, content, message):
    bad("safetensors", name + ".safetensors", content, "FORMAT", message)


ONE = {"layers.0.weight": entry()}
st("empty", b"", ": 0 bytes, too short for safetensors")
st("short", b"\x01\x00", ": 2 bytes, too short for safetensors")
st("not_safetensors", b"PK\x03\x04 this is a zip file\n", ": header of [0-9]+ bytes, at most 100000000 are read")
st("header_cut", tensors(ONE)[:30], ": header of [0-9]+ bytes, but only 22 follow; the file is truncated")
st("header_not_object", tensors("[1, 2] "), ": the header is not a JSON object")
st("header_syntax", tensors('{"a": {"dtype" "F32"}}', bytes(8)), ": header:1:16: not valid JSON here")
st("header_not_utf8", tensors(b'{"\xff": 1}', bytes(8)), ": header:1:3: not UTF-8")
st("header_deep", tensors('{"a": ' + "[" * 100 + "]" * 100 + "}"), ": header:1:70: nested too deep")
st("tensor_not_object", tensors({"w": 1}), ": tensor 'w': expected an object")
st("dtype_missing", tensors({"w": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), ": tensor 'w': 'dtype' is missing")
st("dtype_unknown", tensors({"w": entry("F8_E4M3")}, bytes(8)), ": tensor 'w': dtype 'F8_E4M3', expected F32")
st("shape_negative", tensors({"w": entry(shape=(-2,))}, bytes(8)), ": tensor 'w': shape\\[0\\] is not a whole number")
st("shape_overflow", tensors({"w": entry(shape=(2**40, 2**40))}, bytes(8)), ": tensor 'w': shape overflows")
st("shape_mismatch", tensors({"w": entry(shape=(3,))}, bytes(8)), ": tensor 'w': shape and dtype need 12 bytes, data_offsets give 8")
st("data_cut", tensors(ONE, bytes(5)), ": tensor 'layers.0.weight': data_offsets \\[0, 8\\] outside the 5 bytes of data; the file is truncated")
st("data_too_long", tensors(ONE, bytes(9)), ": 9 bytes of data, the tensors take 8")
st("offsets_backwards", tensors({"w": entry(begin=8, end=0)}, bytes(8)), ": tensor 'w': data_offsets \\[8, 0\\] outside")
st("offsets_negative", tensors({"w": entry(begin=-8, end=0)}, bytes(8)), ": tensor 'w': data_offsets is not \\[begin, end\\]")
st("overlap", tensors({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), ": tensor 'b': begins at byte 4 of the data, expected 8 \\(overlap\\)")
st("gap", tensors({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)), ": tensor 'b': begins at byte 12 of the data, expected 8 \\(gap\\)")
st("name_twice", tensors('{"a":%s,"a":%s}' % (json.dumps(entry()), json.dumps(entry(begin=8, end=16))), bytes(16)), ": tensor 'a': is given twice")
st("metadata_number", tensors({"__metadata__": {"step": 3}}), ": __metadata__ 'step' is not text")
st("hash_wrong", tensors({"__metadata__": {"mica.hash": "xxh3-128:" + "0" * 32}, **ONE}, bytes(8)), ": content hash differs")
good("safetensors", "one.safetensors", tensors({"__metadata__": {"a": "b"}, **ONE, "u": entry("U8", (3,), 8, 11), "d": entry("F64", (1, 1), 11, 19)}, bytes(19)))
good("safetensors", "none.safetensors", tensors("{}"))


# ---- npy ----
def array(header, data=bytes(8), version=(1, 0), length=None):
    text = header.encode() + b"\n"
    size = len(text) if length is None else length
    head = b"\x93NUMPY" + bytes(version) + (struct.pack("<H", size) if version[0] == 1 else struct.pack("<I", size))
    return head + text + data


def npy(name, content, message):
    bad("npy", name + ".npy", content, "FORMAT", message)


F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
npy("empty", b"", ": not a .npy file")
npy("text", b"1.0, 2.0, 3.0\n4.0, 5.0, 6.0\n", ": not a .npy file")
npy("npz", b"PK\x03\x04" + bytes(30), ": not a .npy file.*it is a .npz, unpack it")
npy("version", array(F4, version=(9, 0)), ": .npy version 9.0, expected 1.0 to 3.0")
npy("header_cut", array(F4)[:40], ": header of [0-9]+ bytes, but only 30 follow; the file is truncated")
npy("data_cut", array(F4, bytes(5)), ": shape and dtype need 8 bytes of data, the file has 5; it is truncated")
npy("data_too_long", array(F4, bytes(12)), ": shape and dtype need 8 bytes of data, the file has 12")
npy("big_endian", array(F4.replace("<f4", ">f4")), ": dtype '>f4' is big-endian")
npy("complex", array(F4.replace("<f4", "<c8")), ": dtype '<c8', expected one of f4 f8")
npy("objects", array(F4.replace("<f4", "|O")), ": dtype '\\|O', expected one of f4 f8")
npy("structured", array(F4.replace("'<f4'", "[('x', '<f4')]")), ": a structured dtype, expected plain numbers")
npy("fortran", array(F4.replace("False", "True")), ": Fortran order, expected C order")
npy("shape_missing", array("{'descr': '<f4', 'fortran_order': False, }"), ": header: 'shape' is missing")
npy("shape_negative", array(F4.replace("(2,)", "(-2,)")), ": header: expected a size of the shape at '-2")
npy("shape_overflow", array(F4.replace("(2,)", "(4294967296, 4294967296)")), ": shape overflows")
npy("code", array("__import__('os').system('true')"), ": header: expected '\\{' at '__import__")
for major in (1, 2, 3):
    for code, size in (("<f4", 4), ("<f8", 8), ("|i1", 1), ("<i2", 2), ("<i8", 8), ("|b1", 1)):
        good("npy", f"{code[1:]}_{major}.npy", array(F4.replace("<f4", code), bytes(2 * size), (major, 0)))
good("npy", "images.idx", struct.pack(">BBBBII", 0, 0, 8, 2, 2, 2) + bytes(4))


# ---- csv and tsv ----
def csv(name, content, message):
    bad("csv", name, content, "FORMAT", message)


csv("empty.csv", "", ": no rows of numbers; the file is empty")
csv("header_only.csv", "x,y\n", ": no rows of numbers below the header")
csv("text.csv", "x,y\n1,2\n3,abc\n", ":3:3: field 2 \\(y\\): expected a number, got 'abc'")
csv("missing.csv", "x,y\n1,2\n3,\n", ":3:3: field 2 \\(y\\): expected a number, got ''")
csv("short_row.csv", "x,y,z\n1,2,3\n4,5\n", ":3:1: expected 3 fields, as in the first line, got 2")
csv("long_row.csv", "1,2\n3,4\n5,6,7\n", ":3:1: expected 2 fields, as in the first line, got 3")
csv("open_quote.csv", "x,y\n1,\"2\n3,4\n", ":2:3: quoted field without its closing quote")
csv("after_quote.csv", "x,y\n\"1\"0,2\n", ":2:4: text after the closing quote")
csv("inner_quote.csv", "x,y\n1\"0,2\n", ":2:2: quote inside a field")
csv("infinite.csv", "x,y\n1,1e999\n", ":2:3: field 2 \\(y\\): expected a number, got '1e999'")
csv("binary.csv", bytes(range(1, 256)), ":")
csv("comma_decimal.tsv", "x\ty\n1,5\t2\n", ":2:1: field 1 \\(x\\): expected a number, got '1,5'")
good("csv", "good.csv", "x,\"y, z\"\n1,2\r\n\n3,\"4\"\n")
good("csv", "good.tsv", "1\t2\n3\t-4e-5\n")


# ---- JSON lines ----
def jsonl(name, content, message):
    bad("jsonl", name + ".jsonl", content, "FORMAT", message)


jsonl("cut", '{"text": "a"}\n{"text": "b', ":2:10: text without its closing quote")
jsonl("cut_object", '{"text": "a"', ":1:13: JSON ends too early")
jsonl("not_json", '{"text": "a"}\ntext: b\n', ":2:1: not valid JSON here")
jsonl("list", '["a"]\n', ":1:1: expected a JSON object")
jsonl("no_key", '{"text": "a"}\n{"txet": "b"}\n', ":2: no key 'text'; did you mean 'txet'\\?")
jsonl("not_text", '{"text": 3}\n', ":1: 'text' is not text")
jsonl("two_on_a_line", '{"text": "a"} {"text": "b"}\n', ":1:15: not valid JSON here")
jsonl("not_utf8", b'{"text": "\xe9"}\n', ":1:11: not UTF-8")
jsonl("zero", '{"text": "a\\u0000b"}\n', ":1:12: zero character in a string")
jsonl("deep", '{"text": ' + "[" * 100 + "]" * 100 + "}\n", ":1:73: nested too deep")
good("jsonl", "good.jsonl", '{"text": "a\\n\\u00e9\\ud83d\\ude00", "n": -1.5e3}\n\n{"text": "", "n": 0, "more": [true, null, {}]}\n')

with open(os.path.join(HERE, "expect.tsv"), "w", encoding="utf-8") as out:
    for row in rows:
        out.write("\t".join(row) + "\n")
print(len(rows), "malformed files")
